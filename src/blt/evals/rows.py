"""Rows of what ``blt eval`` measures, with their intervals, and how much is to be measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from blt.errors import UserError
from blt.evals.intervals import interval, paired
from blt.lm import LanguageModel
from blt.machine.precision import Precision, reading_dtype

Row = dict[str, Any]  # the same keys in all rows of a task, the first one a name
MAX_BYTES = 262144  # of each text, where nothing else is said


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    context_bytes: int = 2048  # documents are scored in pieces of at most so many bytes
    max_bytes: int | None = None  # of each text; None: as many as the task takes
    limit: int | None = None  # questions, sentences or samples of each task; None: all
    generate: bool = False  # CUTE: let the model write its answers, as published
    zero_shot: bool = False  # CUTE: without its instruction and examples
    typos: Path | None = None  # noise: a file of misspellings, for one noise more
    noise: bool = False  # HellaSwag: with noise in the context too
    threshold: float | None = None  # θ to score with too, beside the model's own; nats
    target_patch_size: float | None = None  # bytes: θ is calibrated to it on the texts
    precision: Precision = "auto"  # of matrix products; auto: bfloat16 on a GPU that has it

    @property
    def recuts(self) -> bool:
        """Is each model measured with another θ too?"""
        return self.threshold is not None or self.target_patch_size is not None

    def dtype(self, lm: LanguageModel) -> torch.dtype:
        """Of matrix products where ``lm`` scores text."""
        return reading_dtype(lm.device, self.precision)

    def scoring(self, lm: LanguageModel) -> dict[str, Any]:
        """How :func:`blt.scoring.bits.bits_per_byte` is to score."""
        return {"context_bytes": self.context_bytes, "dtype": self.dtype(lm)}


@dataclass(frozen=True)
class Measured:
    """A row, and the pieces or questions that its main column is made of."""

    row: Row
    key: str  # of the main column: the sum of values over the sum of sizes
    values: Sequence[float] = ()  # of each piece; none: this row has no interval
    sizes: Sequence[float] | None = None  # of each piece; None: 1
    strata: Sequence[int] | None = None  # document of each piece; None: one for all


@dataclass
class Shown:
    """Turns what is measured into rows with the main column's 95 % interval: ``low``, ``high``.

    Where several models are compared, rows of the others also have the difference to the first
    model on the same pieces, and the ratio.
    """

    several: bool = False
    first: dict[str, Measured] | None = None  # rows of the first model, once it is done
    _seen: dict[str, Measured] = field(default_factory=dict)

    def next_model(self) -> None:
        """What comes now is of another model."""
        if self.first is None:
            self.first = self._seen

    def row(self, measured: Measured) -> Row:
        """A row as it is shown: the name, the main column with its interval, and all others."""
        name = name_of(measured.row)
        if self.first is None:
            self._seen[name] = measured
        found: Row = {}
        for column, value in measured.row.items():
            found[column] = value
            if column == measured.key:
                found |= _edges(measured)
        if self.several:
            found |= _compared((self.first or {}).get(name), measured)
        return found


def name_of(row: Row) -> str:
    """What a row is about: all of it that is text."""
    return " ".join(value for value in row.values() if isinstance(value, str))


def _edges(measured: Measured) -> Row:
    low, high = _ends(measured.values, measured.sizes, measured.strata)
    return {"low": low, "high": high}


def with_edges(name: str, values: Sequence[float], sizes: Sequence[float] | None = None) -> Row:
    """A column beside the main one, and its own interval."""
    value = sum(values) / (len(values) if sizes is None else sum(sizes))
    low, high = _ends(values, sizes, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _ends(
    values: Sequence[float], sizes: Sequence[float] | None, strata: Sequence[int] | None
) -> tuple[float | None, float | None]:
    """Of an interval; None where nothing is known: of one piece, or of some that have no size."""
    if len(values) < 2:
        return None, None
    found = interval(values, sizes, strata)
    return _known(found.low), _known(found.high)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _compared(first: Measured | None, other: Measured) -> Row:
    """The difference to the first model; nothing where the two had different pieces."""
    names = ("difference", "difference_low", "difference_high", "ratio", "ratio_low", "ratio_high")
    if first is None or len(other.values) < 2 or not alike(first, other):
        return dict.fromkeys(names)
    found = paired(first.values, other.values, other.sizes, other.strata)
    edges = [x for one in (found.difference, found.ratio) for x in (one.value, one.low, one.high)]
    return dict(zip(names, map(_known, edges), strict=True))


def alike(first: Measured, other: Measured) -> bool:
    """Are two rows made of the same pieces, as far as their number and sizes tell?"""
    sizes = [None if x.sizes is None else list(x.sizes) for x in (first, other)]
    return len(first.values) == len(other.values) and sizes[0] == sizes[1]


def only(paths: Sequence[str], what: str) -> str:
    """The one path of a task that takes no more.

    Raises:
        UserError: none, or several.
    """
    if len(paths) != 1:
        raise UserError(f"name {what}, and nothing else")
    return paths[0]


def accuracy(
    about: Row, credits: Sequence[float], guess: float, strata: Sequence[int] | None = None
) -> Measured:
    """A row of so many questions: the share of right answers, and that of a model that guesses."""
    row: Row = {**about, "questions": len(credits)}
    row["acc"] = sum(credits) / max(1, len(credits))
    row["guess"] = guess
    return Measured(row, "acc", credits, None, strata)


def mean_of(name: str, rows: Sequence[Measured]) -> Measured:
    """A last row: means of columns, in which each row counts the same however large it is.

    Whole numbers are added up. What a row has no number for is left out of it.
    """
    found = [one for one in rows if len(one.values)]
    row: Row = {}
    for key, value in rows[0].row.items():
        numbers = [one.row[key] for one in found if isinstance(one.row[key], int | float)]
        if isinstance(value, str):
            row[key] = name
        elif isinstance(value, int):
            row[key] = sum(numbers)
        elif key.endswith(("_low", "_high")):
            row[key] = None
        else:
            row[key] = sum(numbers) / len(numbers) if numbers else None
    values: list[float] = []
    strata: list[int] = []
    for number, one in enumerate(found):
        count = len(one.values)
        sizes = [1.0] * count if one.sizes is None else one.sizes
        whole, ratio = sum(sizes), sum(one.values) / sum(sizes)
        pieces = zip(one.values, sizes, strict=True)
        # What a piece adds to a row's ratio, its size drawn along: the linear part of the ratio.
        values += [ratio / count + (value - ratio * size) / whole for value, size in pieces]
        strata += [number] * count
    scale = len(values) / max(1, len(found))  # so that the mean of all is the mean of the means
    return Measured(row, rows[0].key, [value * scale for value in values], None, strata)
