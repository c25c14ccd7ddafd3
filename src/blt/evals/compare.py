"""One task on several models, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from blt.errors import UserError
from blt.evals.models import load
from blt.evals.tasks import TASKS, Options, Row

MODEL = "model"  # the column that says which


def compare(
    task: str, folders: Sequence[str | Path], paths: Sequence[str], options: Options
) -> Iterator[Row]:
    """Rows of ``task`` for each model; those of several models say which, behind their name.

    Only one model is in memory at a time.

    Raises:
        UserError: a folder without a model, or the same one twice.
    """
    names = short_names([Path(folder) for folder in folders])
    for folder, name in zip(folders, names, strict=True):
        for row in TASKS[task].rows(load(str(folder)), paths, options):
            if len(folders) > 1:
                first = next(iter(row))
                row = {first: row[first], MODEL: name, **row}
            yield row


def short_names(folders: Sequence[Path]) -> list[str]:
    """Paths without the parts that all of them share at their start and end."""
    if len(folders) < 2:
        return [str(folder) for folder in folders]
    twice = [folder for folder, count in Counter(folders).items() if count > 1]
    if twice:
        raise UserError(f"--model {twice[0]}: named twice")
    parts = [folder.parts for folder in folders]
    start = _shared(parts)
    end = _shared([tuple(reversed(of[start:])) for of in parts])
    kept = [of[start : len(of) - end] for of in parts]
    return [str(Path(*of)) if of else str(folder) for of, folder in zip(kept, folders, strict=True)]


def _shared(parts: Sequence[tuple[str, ...]]) -> int:
    """How many parts at the start are the same in all, the last of each left out."""
    count = 0
    for column in zip(*(of[:-1] for of in parts), strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count
