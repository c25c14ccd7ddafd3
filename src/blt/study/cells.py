"""What a study's tables and figures are made of: bits per byte with intervals.

An interval is the middle 95 % of a bootstrap in two levels: seeds are drawn anew, and pieces of
every text. All runs share the pieces that are drawn, so differences between families are paired.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from blt.study.config import Family, Point, Study
from blt.study.folder import COSTS, HELDOUT, RESULTS, SCORES, StudyFolder
from blt.study.lines import Line
from blt.study.search import Search

DRAWS = 2000
TAIL = 2.5  # per cent on each side of an interval


class Cell(NamedTuple):
    """A value, and the interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    """The runs of a study that are compared, with their scores."""

    study: Study
    lines: Sequence[Line]  # of all runs
    scores: Mapping[str, Line]  # by the run's name
    heldout: Mapping[str, Mapping[str, Any]]  # kinds, texts, facts
    costs: Mapping[str, Line]  # by the run's name

    @classmethod
    def read(cls, study: Study, folder: StudyFolder) -> Compared:
        """All that has ended by now."""
        scores, costs = (
            {line["name"]: line for line in folder.lines(file)} for file in (SCORES, COSTS)
        )
        return cls(study, folder.lines(RESULTS), scores, folder.json(HELDOUT), costs)

    @cached_property
    def search(self) -> Search:
        return Search(self.study, self.lines)

    @cached_property
    def by_name(self) -> dict[str, Line]:
        """The lines of all runs."""
        return {line["name"]: line for line in self.lines}

    def seconds(self, point: Point) -> float | None:
        """Of one training: measured alone on the machine, times the bytes that it read; with those
        that its patcher's training took."""
        if point.name not in self.costs:
            return None
        per_megabyte = float(self.costs[point.name]["seconds_per_megabyte"])
        patcher = 0.0 if point.patcher is None else float(self.by_name[point.patcher]["seconds"])
        return patcher + per_megabyte * float(self.by_name[point.name]["bytes_seen"]) / 1e6

    @cached_property
    def points(self) -> dict[tuple[str, float], list[Point]]:
        """Runs with scores, by family and budget, a seed each."""
        found: dict[tuple[str, float], list[Point]] = {}
        for point in self.search.chosen():
            if point.name in self.scores:
                found.setdefault((point.family, point.budget), []).append(point)
        return found

    @cached_property
    def budgets(self) -> list[float]:
        """Those at which something is compared."""
        return sorted({budget for _, budget in self.points})

    @cached_property
    def families(self) -> list[Family]:
        """Those that are compared somewhere, in the order of the study."""
        return [f for f in self.study.families if any(name == f.name for name, _ in self.points)]

    def texts(self, kind: str) -> list[str]:
        return list(self.heldout[kind])

    def cell(self, family: str, budget: float, kind: str, text: str | None = None) -> Cell:
        """Bits per byte, the mean over a kind's texts (or of one) and over seeds."""
        asked = family, budget, kind, text
        return _cell(float(self._values(*asked).mean()), self._draws(*asked))

    def more(self, family: str, than: str, budget: float, kind: str) -> Cell:
        """By what share a family has more bits than another, on the same pieces."""
        values = [self._values(name, budget, kind, None).mean() for name in (family, than)]
        draws = [self._draws(name, budget, kind, None) for name in (family, than)]
        return _cell(float(values[0] / values[1] - 1), draws[0] / draws[1] - 1)

    def _names(self, family: str, budget: float) -> list[str]:
        return [point.name for point in self.points[family, budget]]

    def _values(self, family: str, budget: float, kind: str, text: str | None) -> np.ndarray:
        """Bits per byte of each seed  # [seeds]."""
        texts = [text] if text else self.texts(kind)
        per_text = [
            [sum(self.scores[name]["bits"][kind][t]) for name in self._names(family, budget)]
            for t in texts
        ]
        sizes = [self.heldout[kind][t]["bytes"] for t in texts]
        return (np.array(per_text) / np.array(sizes)[:, None]).mean(0)

    def _draws(self, family: str, budget: float, kind: str, text: str | None) -> np.ndarray:
        """Bits per byte of resampled seeds and pieces  # [DRAWS]; the same whenever asked."""
        key = (family, budget, kind, text)
        if key not in self._resampled:
            self._resampled[key] = self._resample(family, budget, kind, text)
        return self._resampled[key]

    def _resample(self, family: str, budget: float, kind: str, text: str | None) -> np.ndarray:
        texts = [text] if text else self.texts(kind)
        names = self._names(family, budget)
        total = np.zeros((DRAWS, len(names)))
        for t in texts:
            bits = np.array([self.scores[name]["bits"][kind][t] for name in names])
            counts, sizes = self._counts(kind, t), np.array(self.heldout[kind][t]["pieces"])
            total += counts @ bits.T / (counts @ sizes)[:, None]
        key = f"{family} {budget}".encode()  # seeds of different families have nothing in common
        chance = np.random.default_rng(zlib.crc32(key))
        drawn = chance.integers(len(names), size=(DRAWS, len(names)))
        return np.take_along_axis(total / len(texts), drawn, 1).mean(1)  # type: ignore[no-any-return]

    def _counts(self, kind: str, text: str) -> np.ndarray:
        """How often each piece of a text is drawn  # [DRAWS, pieces]; the same for all runs."""
        key = (kind, text)
        if key not in self._drawn:
            pieces = len(self.heldout[kind][text]["pieces"])
            chance = np.random.default_rng(zlib.crc32(f"{kind} {text}".encode()))
            self._drawn[key] = chance.multinomial(pieces, [1 / pieces] * pieces, size=DRAWS)
        return self._drawn[key]

    @cached_property
    def _resampled(self) -> dict[tuple[str, float, str, str | None], np.ndarray]:
        return {}

    @cached_property
    def _drawn(self) -> dict[tuple[str, str], np.ndarray]:
        return {}


def _cell(value: float, draws: np.ndarray) -> Cell:
    low, high = np.percentile(draws, (TAIL, 100 - TAIL))
    return Cell(value, float(low), float(high))
