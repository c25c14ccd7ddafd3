"""A chat template: messages in, ids out, and which of them the assistant is to learn."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blt import vocab
from blt.chat.messages import ASSISTANT, Message, check_messages
from blt.chat.sandbox import LEARNED, LEARNED_END, SPECIALS, Marks, Program
from blt.chat.source import TEMPLATE, check, read_file, read_source, write_source
from blt.errors import UserError, require

# A turn ends with the id EOS, which no text has, so that what is said cannot end a turn.
DEFAULT = """\
{{- bos_token }}
{%- for message in messages %}
    {{- message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] + eos_token }}{% endgeneration %}
    {%- else %}
        {{- message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'assistant\\n' }}
{%- endif %}
"""
NAMED_DEFAULT = "default"  # how users call it


class Segment(NamedTuple):
    """A part of a rendered conversation.

    Attributes:
        ids: over bytes: byte b is b + 4; special ones only where the template wrote them.
        learned: is it the assistant's: what it says, and the end of its turn?
    """

    ids: tuple[int, ...]
    learned: bool


class ChatTemplate:
    """How a conversation is laid out as a document: a Jinja template, in transformers' convention.

    It is given ``messages``, ``add_generation_prompt``, and special ids as ``bos_token``,
    ``eos_token``, ``boe_token`` and ``bpe_token``. Bytes of a message never become these.

    Args:
        source: the template.
        where: its file, for messages.

    Raises:
        UserError: not a template; names file and line.
    """

    def __init__(self, source: str, where: str = TEMPLATE) -> None:
        self.source, self.where = check(source, where)
        self._program = Program(source, where)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> ChatTemplate | None:
        """That of a model folder: ``chat_template.jinja``, else that in ``tokenizer_config.json``;
        None where there is neither.

        Raises:
            UserError: a damaged one; names file and line.
        """
        found = read_source(Path(folder))
        return None if found is None else cls(*found)

    @classmethod
    def default(cls) -> ChatTemplate:
        """Role, newline, content, and the id EOS, for each message."""
        return cls(DEFAULT, "the default template")

    @classmethod
    def chosen(cls, choice: str) -> ChatTemplate:
        """What a user names: "default", a file, or a model folder that has one.

        Raises:
            UserError: no template.
            OSError: no such file.
        """
        if choice == NAMED_DEFAULT:
            return cls.default()
        if not Path(choice).is_dir():
            return cls(*read_file(Path(choice)))
        found = cls.from_folder(choice)
        if found is None:
            raise UserError(f"{choice}: has no chat template; name a file, or {NAMED_DEFAULT}")
        return found

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Put it into a model folder, in place of one that may be there."""
        write_source(Path(folder), self.source)

    def render(
        self, messages: Sequence[Any], *, add_generation_prompt: bool = False
    ) -> list[Segment]:
        """The document that a conversation is, without the BOS in front of every document.

        Args:
            messages: as :func:`blt.chat.check_messages` takes them.
            add_generation_prompt: begin the turn that the assistant is to write. Nothing is
                learned then: it is a prompt.

        Raises:
            UserError: a message that is none, or a template that fails or, without
                ``{% generation %}``, writes earlier turns anew; names index, or file and line.
        """
        checked, marks = check_messages(messages), Marks()
        text = self._run(checked, marks, add_generation_prompt)
        if add_generation_prompt:
            spans = [(part, name, False) for part, name in self._split(marks, text)]
        elif self._program.marks_learned:
            spans = self._marked(marks, text)
        else:
            spans = [
                (part, name, learned)
                for span, learned in self._compared(checked, marks, text)
                for part, name in self._split(marks, span)
            ]
        return _segments(spans)

    def prompt(self, messages: Sequence[Any]) -> Tensor:
        """Ids of a conversation after which the assistant's answer is due, BOS first  # [T] int64.

        Raises:
            UserError: as of :meth:`render`.
        """
        segments = self.render(messages, add_generation_prompt=True)
        ids = [vocab.BOS, *(token_id for segment in segments for token_id in segment.ids)]
        return torch.tensor(ids, dtype=torch.int64, device="cpu")

    @cached_property
    def end(self) -> bytes:
        """What ends an answer besides the id EOS: a text, for a stop string; empty: EOS alone does.

        Raises:
            UserError: the template fails, or ends answers with an id that no model writes.
        """
        said, marks = "said", Marks()
        turns: list[Message] = [
            {"role": "user", "content": "asked"},
            {"role": ASSISTANT, "content": said},
        ]
        after = self._run(turns, marks, False).rpartition(said)[2]
        tail = ""
        for part, name in self._split(marks, after):
            tail += part
            if name in SPECIALS:
                break
        require(
            name == "eos_token" or name not in SPECIALS,
            f"{self.where}: ends what the assistant says with {name}, which no model writes; end "
            "it with eos_token",
        )
        return vocab.to_bytes(tail.strip() or ("" if name else tail))

    @cached_property
    def can_be_forged(self) -> bool:
        """Is a turn set apart by text alone, which a message may hold as well?

        Raises:
            UserError: the template fails.
        """
        marks, said = Marks(), [secrets.token_hex(16) for _ in range(3)]
        roles = ("user", ASSISTANT, "user")
        turns: list[Message] = [
            {"role": role, "content": content} for role, content in zip(roles, said, strict=True)
        ]
        parts = re.split("|".join(said), self._run(turns, marks, False))
        between = (self._split(marks, part) for part in parts[1:-1])
        apart = [any(name in SPECIALS for _, name in found) for found in between]
        return apart != [True, True]

    def _run(self, messages: list[Message], marks: Marks, add_generation_prompt: bool) -> str:
        return self._program.run(
            marks,
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
        )

    def _split(self, marks: Marks, text: str) -> list[tuple[str, str]]:
        try:
            return list(marks.split(text))
        except ValueError as error:
            raise UserError(f"{self.where}: {error}") from None

    def _marked(self, marks: Marks, text: str) -> list[tuple[str, str, bool]]:
        """Of what ``{% generation %}`` stands around, that it is learned."""
        found, learned = [], False
        for part, name in self._split(marks, text):
            found.append((part, name, learned))
            learned = name == LEARNED or (learned and name != LEARNED_END)
        return found

    def _compared(self, messages: list[Message], marks: Marks, text: str) -> list[tuple[str, bool]]:
        """What each turn of the assistant adds to the prompt for it is learned."""
        spans, at = [], 0
        for index, message in enumerate(messages):
            if message["role"] != ASSISTANT:
                continue
            # Some templates refuse to begin with the assistant; nothing comes before it then.
            before = self._run(messages[:index], marks, True) if index else ""
            after = self._run(messages[: index + 1], marks, False)
            if not (after.startswith(before) and text.startswith(after) and len(before) >= at):
                raise UserError(
                    f"{self.where}: writes turn {index} otherwise once others follow, so it cannot "
                    "be told what is learned; put {% generation %} around what the assistant says"
                )
            spans += [(text[at : len(before)], False), (text[len(before) : len(after)], True)]
            at = len(after)
        return [*spans, (text[at:], False)]


def _segments(spans: Iterable[tuple[str, str, bool]]) -> list[Segment]:
    """From texts, the mark behind each, and whether both are learned; without a first BOS."""
    found: list[tuple[list[int], bool]] = []
    for text, name, learned in spans:
        ids = [byte + vocab.OFFSET for byte in vocab.to_bytes(text)]
        if name in SPECIALS:
            ids.append(SPECIALS[name])
        if ids == [vocab.BOS] and not found:
            continue
        if ids:
            found.append((ids, learned))
    return [
        Segment(tuple(token_id for ids, _ in group for token_id in ids), learned)
        for learned, group in groupby(found, key=lambda one: one[1])
    ]
