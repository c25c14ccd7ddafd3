"""A conversation in progress: who said what, how much of it a model is given, and its file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from blt.chat.messages import ASSISTANT, Message, check_messages
from blt.chat.template import ChatTemplate
from blt.errors import UserError, require
from blt.files.strict_json import parse_object


class Conversation:
    """Messages so far.

    Attributes:
        messages: the system's, if there is one, and turns.
    """

    def __init__(self, messages: Sequence[Any] = ()) -> None:
        self.messages: list[Message] = check_messages(messages) if messages else []

    def say(self, role: str, content: str) -> None:
        """Add a message."""
        self.messages += check_messages([{"role": role, "content": content}], "message")

    def set_system(self, content: str) -> None:
        """Put a system message in front, in place of the one there; empty: take it away."""
        rest = self.messages[self._first :]
        self.messages = []
        if content:
            self.say("system", content)
        self.messages += rest

    def reset(self) -> None:
        """Forget all but the system message."""
        del self.messages[self._first :]

    def take_answer(self) -> bool:
        """Take back the last answer, if the last message is one."""
        answered = bool(self.messages) and self.messages[-1]["role"] == ASSISTANT
        if answered:
            self.messages.pop()
        return answered

    def take_question(self) -> str:
        """Take back the last question and what followed it.

        Returns:
            the question.

        Raises:
            UserError: there is none.
        """
        asked = [at for at, message in enumerate(self.messages) if message["role"] == "user"]
        require(bool(asked), "nothing has been asked yet")
        question = self.messages[asked[-1]]["content"]
        del self.messages[asked[-1] :]
        return question

    def prompt(self, template: ChatTemplate, most: int) -> tuple[Tensor, int]:
        """What the model is given: all, or without the oldest turns, that is, questions with what
        followed them; the system message stays.

        Args:
            most: bytes of a prompt.

        Returns:
            ids [T] int64, BOS first, and how many messages were left out.

        Raises:
            UserError: the last turn alone is longer, or the template fails.
        """
        system, rest = self.messages[: self._first], self.messages[self._first :]
        asked = [at for at, message in enumerate(rest) if message["role"] == "user" and at > 0]
        for first in (0, *asked):
            ids = template.prompt([*system, *rest[first:]])
            if len(ids) - 1 <= most:
                return ids, first
        raise UserError(
            f"the last message makes a prompt of {len(ids) - 1} bytes, and {most} fit; shorten it"
        )

    def save(self, path: Path) -> int:
        """Add it to a file as one line of JSON, ``{"messages": [...]}``, as ``blt train`` reads it.

        Returns:
            the number of the line.
        """
        require(bool(self.messages), "there is nothing to save yet")
        found = {"messages": self.messages}
        try:
            line = json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # bytes that are no text
            line = json.dumps(found).encode()
        with path.open("a+b") as file:
            file.seek(0)
            before = file.read()
            file.write((b"" if before[-1:] in (b"", b"\n") else b"\n") + line + b"\n")
        return len(before.splitlines()) + 1

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """That of the last line of a file.

        Raises:
            UserError: no messages; names line and key.
            OSError: no such file.
        """
        lines = path.read_bytes().splitlines()
        numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
        require(bool(numbers), f"{path}: is empty")
        where = f"{path}, line {numbers[-1]}"
        found = parse_object(lines[numbers[-1] - 1], where, "choose another file")
        require("messages" in found, f"{where}: has no messages")
        return cls(check_messages(found["messages"], f"{where}: messages"))

    @property
    def _first(self) -> int:
        """Where turns begin."""
        return int(bool(self.messages) and self.messages[0]["role"] == "system")
