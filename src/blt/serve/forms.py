"""How an API has its answers: a form, here that of completions."""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import BaseModel

from blt.serve.schemas import Choice, Completion, Usage
from blt.serve.writing import Part, Writer

Head = dict[str, Any]  # id, created and model, which all chunks of an answer share


class Form(Protocol):
    """Makes answers, and the data of events."""

    @property
    def writer(self) -> type[Writer]:
        """What writes a choice."""

    def whole(self, head: Head, parts: list[Part], usage: Usage) -> BaseModel:
        """An answer in one piece."""

    def first(self, head: Head, index: int) -> str | None:
        """What opens a choice, if anything does."""

    def chunk(self, head: Head, part: Part) -> str:
        """A part of a choice."""

    def last(self, head: Head, usage: Usage) -> str:
        """What tells the usage."""


class CompletionForm:
    """That of ``/v1/completions``."""

    writer = Writer

    def whole(self, head: Head, parts: list[Part], usage: Usage) -> BaseModel:
        return Completion(**head, choices=[Choice(**vars(part)) for part in parts], usage=usage)

    def first(self, head: Head, index: int) -> str | None:
        return None

    def chunk(self, head: Head, part: Part) -> str:
        without: Any = {
            "usage": True,
            "choices": {"__all__": {"blt"} if part.blt is None else set()},
        }
        answer = Completion(**head, choices=[Choice(**vars(part))])
        return answer.model_dump_json(exclude=without)

    def last(self, head: Head, usage: Usage) -> str:
        return Completion(**head, choices=[], usage=usage).model_dump_json()
