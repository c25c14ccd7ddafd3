"""Questions that are answered by likelihood: the likeliest of a few answers wins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from blt.errors import require
from blt.lm import LanguageModel

T = TypeVar("T")


@dataclass(frozen=True)
class Term:
    """A log-probability that counts for an answer, ``weight`` times."""

    prompt: bytes
    continuation: bytes
    weight: float = 1.0


@dataclass(frozen=True)
class Question:
    """What counts for each answer, and which of them is right."""

    options: tuple[tuple[Term, ...], ...]
    answer: int

    @classmethod
    def plain(cls, prompt: bytes, choices: Sequence[bytes], answer: int) -> Question:
        """One prompt, and what may follow it."""
        return cls(tuple((Term(prompt, choice),) for choice in choices), answer)


def credits(lm: LanguageModel, questions: Sequence[Question]) -> list[float]:
    """What each question is worth: 1 where the right answer is likeliest, else 0.

    Answers that are equally likely share it, so that a model without opinion gets the share of a
    guess.
    """
    return credits_of(questions, option_values(lm, questions))


def option_values(lm: LanguageModel, questions: Sequence[Question]) -> list[list[float]]:
    """How likely each answer of each question is, in nats.

    All questions are scored together: what they begin with is read once.
    """
    terms = [term for question in questions for option in question.options for term in option]
    scores = iter(lm.log_likelihoods([(term.prompt, term.continuation) for term in terms]))
    return [
        [sum(term.weight * next(scores) for term in option) for option in question.options]
        for question in questions
    ]


def credits_of(
    questions: Sequence[Question], values: Sequence[Sequence[float]], per_byte: bool = False
) -> list[float]:
    """Credits of questions by what :func:`option_values` said.

    Args:
        per_byte: compare them divided by the bytes of each answer, a space in front not counted.

    Raises:
        UserError: a value that is no number.
    """
    found = []
    for question, raw in zip(questions, values, strict=True):
        sizes = [_length(option) if per_byte else 1 for option in question.options]
        known = not any(math.isnan(value) for value in raw)
        require(known, "the model gives no number for an answer: its logits are not finite")
        normed = [value / size for value, size in zip(raw, sizes, strict=True)]
        best = [index for index, value in enumerate(normed) if value == max(normed)]
        found.append((question.answer in best) / len(best))
    return found


def guess(questions: Sequence[Question]) -> float:
    """The mean credit of a model that guesses, exactly."""
    return sum(1 / len(question.options) for question in questions) / max(1, len(questions))


def evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """``limit`` of the items, at equal distances; None: all."""
    count = len(items) if limit is None else min(limit, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _length(option: Sequence[Term]) -> int:
    return max(1, sum(len(term.continuation.removeprefix(b" ")) for term in option))
