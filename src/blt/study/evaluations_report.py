"""What the compared models answered: tables with intervals over seeds and questions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from blt.evals.intervals import Interval, interval, paired
from blt.evals.rows import Measured, alike, name_of
from blt.evals.tasks import find_task
from blt.study.evaluations import Evaluation
from blt.study.lines import Line
from blt.study.markdown import table_head, table_row

RATIOS = ("more_bits",)  # columns that are compared as shares, not as differences
MAIN = "Mean over seeds; in brackets the middle 95 % of a bootstrap over seeds and {pieces}."
BESIDE = "On the same {pieces}, resampled together with the seeds."
APART = "A cell is empty where the {pieces} are not the same as of {beside}: {names}.\n"
OTHER = "Mean over seeds; in brackets the least and the most of them."
Cell = Callable[[str, str], Interval | None]  # of a row and a family


@dataclass(frozen=True)
class Asked:
    """Rows of one evaluation at one budget: by row and family, one of each seed."""

    one: Evaluation
    budget: float
    rows: Mapping[str, Mapping[str, Sequence[Measured]]]
    families: Sequence[str]

    @classmethod
    def of(
        cls, one: Evaluation, budget: float, runs: Mapping[str, Sequence[str]], lines: list[Line]
    ) -> Asked:
        """What ``lines`` say of the runs of each family."""
        by_run = {line["run"]: line["rows"] for line in lines if line["evaluation"] == one.name}
        rows: dict[str, dict[str, list[Measured]]] = {}
        families: dict[str, None] = {}
        for family, names in runs.items():
            for kept in (kept for name in names for kept in by_run.get(name, ())):
                families[family], found = None, Measured(**kept)
                rows.setdefault(name_of(found.row), {}).setdefault(family, []).append(found)
        return cls(one, budget, rows, list(families))

    def measured(self, row: str, family: str) -> Interval | None:
        """The main column of a row, of all seeds; None: the family has no such row."""
        seeds = self.rows[row].get(family, ())
        if not seeds or not seeds[0].values:
            return None
        values = [one.values for one in seeds]
        return interval(values, self._sizes(seeds), seeds[0].strata)

    def _both(self, row: str, family: str, beside: str) -> tuple[Sequence[Measured], ...] | None:
        """What two families answered, the one beside first; None: one of them did not."""
        first, other = (self.rows[row].get(name, ()) for name in (beside, family))
        return (first, other) if first and other and first[0].values else None

    def apart(self, row: str, family: str, beside: str) -> bool:
        """Were two families asked about other pieces, so that nothing can be paired?"""
        both = self._both(row, family, beside)
        return both is not None and not all(alike(both[0][0], one) for of in both for one in of)

    def compared(self, row: str, family: str, beside: str) -> Interval | None:
        """A family's ratio or difference to another; None where they had other pieces."""
        both = self._both(row, family, beside)
        if both is None or self.apart(row, family, beside):
            return None
        first, other = both
        ones, others = ([one.values for one in seeds] for seeds in (first, other))
        pair = paired(ones, others, first[0].sizes, first[0].strata)
        found = pair.ratio if first[0].key in RATIOS else pair.difference
        return found if math.isfinite(found.value) else None

    def seeds(self, row: str, family: str, column: str) -> Interval | None:
        """A column beside the main one, of which only the seeds are known."""
        found = [one.row.get(column) for one in self.rows[row].get(family, ())]
        values = [value for value in found if value is not None]
        return Interval(statistics.fmean(values), min(values), max(values)) if values else None

    @staticmethod
    def _sizes(seeds: Sequence[Measured]) -> Any:
        """Of each piece; of each seed's own, where they differ, as with text that models write."""
        sizes = [one.sizes for one in seeds]
        return sizes[0] if all(of == sizes[0] for of in sizes) else sizes


def evaluation_sections(
    evaluations: Sequence[Evaluation],
    runs: Mapping[tuple[str, float], Sequence[str]],
    lines: list[Line],
) -> Iterator[str]:
    """Tables of every evaluation at every budget.

    Args:
        runs: names of the runs that are compared, by family and budget.
        lines: of ``evals.jsonl``.
    """
    for one in evaluations:
        for budget in sorted({budget for _, budget in runs}):
            own = {family: names for (family, at), names in runs.items() if at == budget}
            asked = Asked.of(one, budget, own, lines)
            if asked.rows:
                yield from _sections(asked)


def _sections(asked: Asked) -> Iterator[str]:
    one, pieces = asked.one, _pieces(asked.one)
    key = next(iter(next(iter(asked.rows.values())).values()))[0].key
    title = f"## {one.name} at {asked.budget:g} FLOPs"
    for column in find_task(one.task).shown:
        if column == "guess":  # stands beside the rows
            continue
        how = MAIN.format(pieces=pieces) if column == key else OTHER
        cell: Cell = asked.measured if column == key else partial(asked.seeds, column=column)
        yield f"{title}: {column}\n\n{how}\n"
        yield _table(asked, column, asked.families, cell)
    for beside in one.beside:
        if beside in asked.families:
            how = "ratio" if key in RATIOS else "difference"
            others = [family for family in asked.families if family != beside]
            yield f"{title}: {key}, {how} to {beside}\n\n{BESIDE.format(pieces=pieces)}\n"
            yield _table(asked, key, others, partial(asked.compared, beside=beside))
            yield from _apart(asked, others, beside)


def _apart(asked: Asked, families: Sequence[str], beside: str) -> Iterator[str]:
    """Says whose cells are empty since their pieces are not those of ``beside``."""
    names = [one for one in families if any(asked.apart(row, one, beside) for row in asked.rows)]
    if names:
        yield APART.format(pieces=_pieces(asked.one), names=", ".join(names), beside=beside)


def _pieces(one: Evaluation) -> str:
    return {"noise": "pieces of text", "utf8": "samples"}.get(one.task, "questions")


def _table(asked: Asked, column: str, families: Sequence[str], cell: Cell) -> str:
    """A row for each of the evaluation's, a column for each family."""
    guesses = {row: _guess(of) for row, of in asked.rows.items()}
    guessed = any(guess is not None for guess in guesses.values())
    lines = [table_head(asked.one.name, *(["guessing"] if guessed else []), *families)]
    for row, of in asked.rows.items():
        if column not in RATIOS or not _is_clean(of):
            guess = [f"{guesses[row]:.3f}"] if guessed else []
            cells = (_bracketed(cell(row, family)) for family in families)
            lines.append(table_row(row, *guess, *cells))
    return "\n".join(lines) + "\n"


def _guess(of: Mapping[str, Sequence[Measured]]) -> float | None:
    """What a model that guesses has, in a row of questions."""
    return next((one.row.get("guess") for seeds in of.values() for one in seeds), None)


def _is_clean(of: Mapping[str, Sequence[Measured]]) -> bool:
    """Is it the row of the text without noise, which costs nothing more than itself?"""
    return not any(any(one.values) for seeds in of.values() for one in seeds)


def _bracketed(found: Interval | None) -> str:
    return "" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
