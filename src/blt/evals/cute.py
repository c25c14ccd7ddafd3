"""CUTE: what a model knows of the characters in its text (arXiv 2409.15452; paper §6.1).

As published: the model writes its answer, greedily, and it must be the right one to the letter. For
small models, which write none, :mod:`blt.evals.cute_pairs` asks the same by likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blt.errors import UserError, require
from blt.evals.cute_prompts import TASKS, WORDING, prompt
from blt.evals.lines import lines_of
from blt.lm import LanguageModel

ROOM = 8  # bytes more than the longest answer, for spaces that are taken off


@dataclass(frozen=True)
class Item:
    """One row of a task."""

    inputs: tuple[str, ...]
    label: str


def read_folder(folder: Path) -> dict[str, list[Item]]:
    """The items of every task, in a folder of ``.tsv`` files.

    Raises:
        UserError: a file that is missing, or there twice; or as of :func:`read_task`.
    """
    found = {}
    for task in TASKS:
        files = sorted(folder.glob(f"{task}.tsv*"))  # packed as they may be
        require(bool(files), f"{folder}: no {task}.tsv in it; name the folder of CUTE's data")
        require(len(files) == 1, f"{files[-1]}: a second file of {task!r}; leave one of them")
        (file,) = files
        found[task] = read_task(file)
        slots = WORDING[task][2].count("{}")
        for item in found[task][:1]:
            columns = f"{file}: {len(item.inputs)} columns before the label, {task} has {slots}"
            require(len(item.inputs) == slots, columns)
    return found


def read_task(path: Path) -> list[Item]:
    """Rows of a tab-separated file with a head line, the last column the answer.

    Raises:
        UserError: unreadable, or a row of another width; names it.
    """
    rows = [line.split("\t") for line in lines_of(path)]
    if not rows or rows[0][-1] != "label":
        raise UserError(f"{path}: the last column of its head must be called label")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UserError(f"{path}:{number}: {len(row)} columns, its head has {len(rows[0])}")
    return [Item(tuple(row[:-1]), row[-1]) for row in rows[1:]]


def generated(
    lm: LanguageModel, task: str, items: Sequence[Item], zero_shot: bool = False
) -> list[float]:
    """1 for each item whose answer the model writes, as CUTE's own script counts.

    Text between the quotes counts, without spaces around it; in tasks about words, in lower case.

    Args:
        zero_shot: ask without CUTE's instruction and examples.
    """
    longest = max((len(item.label.encode()) for item in items), default=0)
    prompts = [prompt(task, item.inputs, zero_shot) for item in items]
    results = lm.generate(prompts, max_bytes=longest + ROOM, stop='"')
    found = []
    for item, result in zip(items, results, strict=True):
        written, label = result.data.decode("utf-8", "replace").strip(), item.label
        if task.endswith("_word"):
            written, label = written.lower(), label.lower()
        found.append(float(written == label and result.finish_reason != "length"))
    return found
