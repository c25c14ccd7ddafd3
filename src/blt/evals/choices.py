"""Multiple choice by likelihood: HellaSwag, whole or disturbed (paper §6.1, table 3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from blt.data.formats import unpacked
from blt.errors import UserError
from blt.evals.noise import disturb
from blt.lm import LanguageModel

WHERE = ("prompt", "completion", "both")  # noise


@dataclass(frozen=True)
class Question:
    """A prompt, what may follow, and which of it is right."""

    prompt: bytes
    choices: tuple[bytes, ...]
    answer: int

    def disturbed(self, noise: str, where: str, seed: int) -> Question:
        """With noise in the prompt, in all choices (each with a space in front), or in both."""
        prompt, choices = self.prompt, self.choices
        if where in ("prompt", "both"):
            prompt = disturb(prompt, noise, seed)
        if where in ("completion", "both"):
            choices = tuple(
                b" " + disturb(choice.removeprefix(b" "), noise, seed + number)
                for number, choice in enumerate(choices, 1)
            )
        return Question(prompt, choices, self.answer)


@dataclass(frozen=True)
class Accuracy:
    """Shares of questions whose right choice was the likeliest."""

    likeliest: float  # by its whole log-probability
    per_byte: float  # by that over its bytes
    questions: int


def accuracy(lm: LanguageModel, questions: Sequence[Question]) -> Accuracy:
    """Answer all questions."""
    pairs = [(q.prompt, choice) for q in questions for choice in q.choices]
    scores = lm.log_likelihoods(pairs)
    edges = pairwise(accumulate((len(q.choices) for q in questions), initial=0))
    right = [0, 0]
    for question, (start, end) in zip(questions, edges, strict=True):
        found = scores[start:end]
        per_byte = [x / max(1, len(c)) for x, c in zip(found, question.choices, strict=True)]
        for kind, values in enumerate((found, per_byte)):
            right[kind] += values.index(max(values)) == question.answer
    count = max(1, len(questions))
    return Accuracy(right[0] / count, right[1] / count, len(questions))


def hellaswag(path: Path, limit: int | None = None) -> list[Question]:
    """Questions of a JSONL file with ``ctx``, ``endings`` and ``label`` on each line.

    Raises:
        UserError: unreadable, or a line without these keys; names it.
    """
    questions: list[Question] = []
    with unpacked(path) as file:
        for number, line in enumerate(file, 1):
            if limit is not None and len(questions) == limit:
                break
            try:
                row = json.loads(line)
                endings = tuple(b" " + str(ending).encode() for ending in row["endings"])
                questions.append(Question(row["ctx"].encode(), endings, int(row["label"])))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{path}:{number}: no question of HellaSwag ({error!r}); every line must be a "
                    'JSON object with "ctx", "endings" and "label"'
                ) from None
    if not questions:
        raise UserError(f"{path}: no questions in it")
    return questions
