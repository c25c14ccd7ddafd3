"""A chat template: messages in, ids out, and which of them the assistant is to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from blt import vocab
from blt.errors import named, require

ROLES = ("system", "user", "assistant")


class Segment(NamedTuple):
    """A part of a rendered conversation.

    Attributes:
        ids: over bytes: byte b is b + 4; special ones only where the template wrote them.
        learned: is it the assistant's: what it says, and the end of its turn?
    """

    ids: tuple[int, ...]
    learned: bool


class ChatTemplate:
    """How a conversation is laid out: role, newline, content, and the id EOS, for each message."""

    @classmethod
    def default(cls) -> ChatTemplate:
        """The only one."""
        return cls()

    def render(
        self, messages: Sequence[Any], *, add_generation_prompt: bool = False
    ) -> list[Segment]:
        """The document that a conversation is, without the BOS in front of every document.

        Raises:
            UserError: a message that is none; names index and key.
        """
        require(isinstance(messages, list) and bool(messages), "messages: must be a list of some")
        found: list[Segment] = []
        for index, message in enumerate(messages):
            role, content = _checked(message, f"messages.{index}")
            found.append(Segment(_ids(f"{role}\n"), False))
            found.append(Segment((*_ids(content), vocab.EOS), role == "assistant"))
        if add_generation_prompt:
            found = [Segment(ids, False) for ids, _ in found]
            found.append(Segment(_ids("assistant\n"), False))
        return found


def _checked(message: Any, where: str) -> tuple[str, str]:
    require(isinstance(message, Mapping), f"{where}: must be an object with role and content")
    role, content = message.get("role"), message.get("content")
    known = ", ".join(ROLES)
    require(role is not None, f"{where}.role: missing; it is one of {known}")
    require(role in ROLES, f"{where}.role: {role!r} is unknown; it is one of {known}")
    require(content is not None, f"{where}.content: missing")
    require(isinstance(content, str), f"{where}.content: must be text, got {content!r:.40}")
    with named(where):
        vocab.to_bytes(content, "content")
    return str(role), str(content)


def _ids(text: str) -> tuple[int, ...]:
    return tuple(byte + vocab.OFFSET for byte in vocab.to_bytes(text))
