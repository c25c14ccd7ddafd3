"""Questions of benchmarks, from the files that their authors publish: one reader per benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from blt.data.packing import text_of, unpacked
from blt.errors import UserError
from blt.evals.choices import Question

Reader = Callable[[Path, int | None], list[Question]]


def hellaswag(path: Path, limit: int | None = None) -> list[Question]:
    """How does a scene go on? One of four endings."""

    def ask(row: Any) -> Question:
        endings = tuple(f" {ending}".encode() for ending in row["endings"])
        return Question(row["ctx"].encode(), endings, int(row["label"]))

    return _questions(path, limit, ask, '"ctx", "endings" and "label"')


def blimp(path: Path, limit: int | None = None) -> list[Question]:
    """One paradigm: which of two sentences is grammatical?"""

    def ask(row: Any) -> Question:
        return Question(b"", (row["sentence_good"].encode(), row["sentence_bad"].encode()), 0)

    return _questions(path, limit, ask, '"sentence_good" and "sentence_bad"')


def piqa(path: Path, limit: int | None = None) -> list[Question]:
    """Which of two ways reaches a goal? The labels lie beside, as in ``valid-labels.lst``."""
    beside = path.parent / f"{path.name.split('.')[0]}-labels.lst"
    labels = text_of(beside).split()

    def ask(row: Any) -> Question:
        ways = (f" {row['sol1']}".encode(), f" {row['sol2']}".encode())
        return Question(f"Question: {row['goal']}\nAnswer:".encode(), ways, 0)

    asked = _questions(path, limit, ask, '"goal", "sol1" and "sol2"')
    if len(labels) < len(asked) or set(labels) - {"0", "1"}:
        raise UserError(f"{beside}: must hold a 0 or 1 for each line of {path.name}")
    return [replace(q, answer=int(label)) for q, label in zip(asked, labels, strict=False)]


def lambada(path: Path, limit: int | None = None) -> list[Question]:
    """What is the last word of a passage? The right one is the only choice."""

    def ask(row: Any) -> Question:
        passage, word = row["text"].rsplit(" ", 1)
        return Question(passage.encode(), (f" {word}".encode(),), 0)

    return _questions(path, limit, ask, '"text", of several words')


def _questions(
    path: Path, limit: int | None, ask: Callable[[Any], Question], keys: str
) -> list[Question]:
    """Of a JSONL file, a question on each line.

    Raises:
        UserError: unreadable, no lines, or a line that is no question; names it.
    """
    questions: list[Question] = []
    with unpacked(path) as file:
        for number, line in enumerate(file, 1):
            if limit is not None and len(questions) == limit:
                break
            try:
                questions.append(ask(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{path}:{number}: no question of this benchmark ({error!r}); every line must "
                    f"be a JSON object with {keys}"
                ) from None
    if not questions:
        raise UserError(f"{path}: no questions in it")
    return questions


CHOICES: dict[str, Reader] = {"blimp": blimp, "piqa": piqa}
