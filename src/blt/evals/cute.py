"""CUTE: what a model knows of the characters in its text (arXiv 2409.15452; paper §6.1)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from blt.data.compressed import text_of
from blt.errors import UserError
from blt.lm import LanguageModel

SHOTS = 4  # solved examples in front of each question
WRONG = 3  # answers of other items beside the right one

# What is asked, with the columns of the files. The wording is ours: CUTE's own is for chat models.
ASKED = {
    "spell": "Spell out the word {0}.",
    "spell_inverse": "Write the word that is spelled {0}.",
    "contains_char": "Is there a {0} in {1}?",
    "contains_word": 'Is there the word {0} in "{1}"?',
    "orth": "Closer in spelling to {0}: {1} or {2}?",
    "sem": "Closer in meaning to {0}: {1} or {2}?",
    "ins_char": "Add {0} after every {1} in {2}.",
    "ins_word": 'Add {0} after every {1} in "{2}".',
    "del_char": "Delete every {0} in {1}.",
    "del_word": 'Delete every {0} in "{1}".',
    "sub_char": "Replace every {0} by {1} in {2}.",
    "sub_word": 'Replace every {0} by {1} in "{2}".',
    "swap_char": "Swap {0} and {1} in {2}.",
    "swap_word": 'Swap {0} and {1} in "{2}".',
}
TASKS = tuple(ASKED)


@dataclass(frozen=True)
class Question:
    """A prompt, what may follow, and which of it is right."""

    prompt: bytes
    choices: tuple[bytes, ...]
    answer: int


@dataclass(frozen=True)
class Accuracy:
    """Shares of questions whose right choice was the likeliest."""

    likeliest: float  # by its whole log-probability
    per_character: float  # by that over its characters, the space in front not counted


@dataclass(frozen=True)
class Item:
    """One row of a task."""

    inputs: tuple[str, ...]
    label: str


def read_task(path: Path) -> list[Item]:
    """Rows of a tab-separated file with a head line, the last column the answer.

    Raises:
        UserError: unreadable, or a row of another width; names it.
    """
    rows = [line.split("\t") for line in text_of(path).splitlines()]
    if not rows or rows[0][-1] != "label":
        raise UserError(f"{path}: the last column of its head must be called label")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UserError(f"{path}:{number}: {len(row)} columns, its head has {len(rows[0])}")
    return [Item(tuple(row[:-1]), row[-1]) for row in rows[1:]]


def questions(task: str, items: Sequence[Item], limit: int | None = None) -> list[Question]:
    """Few-shot prompts, each with the right answer and wrong ones of the same kind.

    Args:
        task: one of :data:`TASKS`.
        items: the first four are the examples in front of all others.
        limit: at most so many questions.
    """
    shots = "".join(f"{_asked(task, item)} {item.label}\n" for item in items[:SHOTS])
    chance = random.Random(0)
    found = []
    for item in items[SHOTS:][:limit]:
        choices = [item.label, *_wrong(task, item, items[SHOTS:], chance)]
        order = chance.sample(choices, len(choices))
        prompt = shots + _asked(task, item)
        encoded = tuple(f" {choice}\n".encode() for choice in order)
        found.append(Question(prompt.encode(), encoded, order.index(item.label)))
    return found


def accuracy(lm: LanguageModel, questions: Sequence[Question]) -> Accuracy:
    """Answer all questions by the log-probabilities of their choices."""
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
    return Accuracy(right[0] / count, right[1] / count)


def generated(lm: LanguageModel, asked: Sequence[Question]) -> float:
    """Share of questions whose answer the model writes, letter by letter, up to the newline."""
    results = lm.generate([question.prompt for question in asked], max_bytes=200, stop="\n")
    right = [
        result.data.strip() == question.choices[question.answer].strip()
        for result, question in zip(results, asked, strict=True)
    ]
    return sum(right) / max(1, len(right))


def _asked(task: str, item: Item) -> str:
    return f"Question: {ASKED[task].format(*item.inputs)}\nAnswer:"


def _wrong(task: str, item: Item, items: Sequence[Item], chance: random.Random) -> list[str]:
    """Wrong answers that look like right ones."""
    if task.startswith("contains"):
        return ["No" if item.label == "Yes" else "Yes"]
    if task in ("orth", "sem"):  # the answer is one of the two words asked about
        return [word for word in item.inputs[1:] if word != item.label]
    near = sorted(
        {other.label for other in items if other.label != item.label},
        key=lambda label: (abs(len(label) - len(item.label)), label),
    )
    # What comes in unchanged is the likeliest mistake of all.
    same = [item.inputs[-1]] if item.inputs[-1] != item.label else []
    pool = [label for label in near if label not in same][: 8 * WRONG]
    return (same + chance.sample(pool, min(WRONG, len(pool))))[:WRONG]
