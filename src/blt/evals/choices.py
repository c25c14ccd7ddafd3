"""Multiple choice by likelihood, whole or disturbed (paper §6.1, table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

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
    per_character: float  # by that over its characters, the space in front not counted
    questions: int


def accuracy(lm: LanguageModel, questions: Sequence[Question]) -> Accuracy:
    """Answer all questions."""
    pairs = [(q.prompt, choice) for q in questions for choice in q.choices]
    scores = lm.log_likelihoods(pairs)
    edges = pairwise(accumulate((len(q.choices) for q in questions), initial=0))
    right = [0, 0]
    for question, (start, end) in zip(questions, edges, strict=True):
        found = scores[start:end]
        lengths = [len(c.decode("utf-8", "replace").removeprefix(" ")) for c in question.choices]
        normed = [x / max(1, length) for x, length in zip(found, lengths, strict=True)]
        for kind, values in enumerate((found, normed)):
            right[kind] += values.index(max(values)) == question.answer
    count = max(1, len(questions))
    return Accuracy(right[0] / count, right[1] / count, len(questions))
