"""What to run next, from what has ended: sizes and rates of every family, seeds, who goes on.

Pure: the same lines give the same answer, in every process that works on a study.

* At each budget, for each size: rates of a ladder, until the best has a worse one on both sides.
* Sizes of a ladder likewise, each at its best rate: at least three, where there are as many.
* The best size and rate is trained again with other seeds.
* Of each group the best family goes on to the next budget, and those that are not clearly worse.
* A variant joins the family that it varies at a budget, and begins at its best size and rates;
  one that spends less of each budget is neither searched nor weighed, and goes on with the other.
  One that leaves after a budget is searched there, and not weighed.

Searches and the rule go by validation bits: of the training sources' own held-out text, weighted
as the sources are. The text that models are compared on takes no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from blt.study.config import Family, Point, Study
from blt.study.lines import Line

CLEARLY = 2.0  # standard errors between a family and the best of its group: it is left out


@dataclass(frozen=True)
class LeftOut:
    """Why a family does not go on."""

    family: str
    after: float  # budget of its last runs
    best: str  # the family that it was weighed against
    more_bits: float  # validation bits per byte, more than the best's
    error: float  # standard error of that difference, by the spread of seeds


class Search:
    """A study and the lines of its runs that have ended.

    Args:
        only: names of families, as if there were no others than these and those that they vary;
            none: all.
    """

    def __init__(self, study: Study, lines: Sequence[Line], only: Sequence[str] = ()) -> None:
        self.study = study
        wanted = {family.name for name in only for family in study.lineage(name)}
        self.all = [one for one in study.families if not only or one.name in wanted]
        self.by_name = {line["name"]: line for line in lines}
        self._known: dict[Any, Any] = {}

    def wanted(self) -> list[Point]:
        """Runs that can be made now, in any order; none: all is done.

        A budget begins when the one below it is done.
        """
        for budget in self.study.budgets:
            points = [p for p in self._at(budget) if p.name not in self.by_name]
            if points:
                return list({point.name: point for point in points}.values())
        return []

    def chosen(self, *, whole: bool = False) -> list[Point]:
        """What is compared: of each family's best size and rate the seeds that have ended.

        Args:
            whole: only of families of which all have.
        """
        return [point for budget in self.study.budgets for point in self._finals(budget, whole)]

    def beaten(self) -> list[Point]:
        """Runs of searches that have ended which found something better."""
        found = []
        for budget in self.study.budgets:
            for family in self.families(budget):
                best = self.best(family, budget)
                if best is not None:
                    found += [p for p in self._searched(family, budget) if p.name != best.name]
        return found

    @cached_property
    def left_out(self) -> list[LeftOut]:
        """Families that do not go on, in the order of budgets."""
        return [out for budget in self.study.budgets for out in self._rule(budget)]

    def families(self, budget: float) -> list[Family]:
        """Those that have not been left out after a budget below, as far as these are done."""
        return self._once(("families", budget), lambda: self._families(budget))  # type: ignore[no-any-return]

    def _families(self, budget: float) -> list[Family]:
        after = {of.family: of.after for below in self._below(budget) for of in self._rule(below)}
        there = [one for one in self.all if one.joins <= budget <= one.leaves]
        return [one for one in there if not self._gone(one, after)]

    def _gone(self, family: Family, after: Mapping[str, float]) -> bool:
        """Was it left out itself, or one that it varies, before it joined?

        Args:
            after: of families that were left out, the budget of their last runs.
        """
        if family.name in after:
            return True
        of = self.study.lineage(family.name)[1:]
        if family.spends < 1:  # the same as another, with which it goes
            return self._gone(of[0], after)
        return any(after.get(other.name, math.inf) < family.joins for other in of)

    def sizes(self, family: Family, budget: float) -> list[int]:
        """Sizes that were tried, or are to be."""
        return sorted({point.size for point in self._searched(family, budget)})

    def best(self, family: Family, budget: float) -> Point | None:
        """The best size and rate; None while it is searched for, here or at the budget below."""
        return self._once(("best", family.name, budget), lambda: self._best(family, budget))  # type: ignore[no-any-return]

    def _best(self, family: Family, budget: float) -> Point | None:
        if not self._begins(family, budget):
            return None
        points = self._searched(family, budget)
        if any(point.name not in self.by_name for point in points):
            return None
        return min(points, key=lambda point: self.bits(point))

    def bits(self, point: Point) -> float:
        """Validation bits per byte of a run that has ended; infinite, if it has given up."""
        return bits_of(self.by_name[point.name])

    def of_seeds(self, family: Family, budget: float) -> list[float]:
        """Validation bits of the runs that are compared."""
        return [self.bits(point) for point in self._seeds(family, budget)]

    def _below(self, budget: float) -> list[float]:
        return [other for other in self.study.budgets if other < budget]

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def is_done(self, budget: float) -> bool:
        """Have all runs ended that a budget needs, and those below it?"""
        return self._once(("done", budget), lambda: self._done(budget))  # type: ignore[no-any-return]

    def _done(self, budget: float) -> bool:
        below = all(self.is_done(other) for other in self._below(budget)[-1:])
        return below and all(point.name in self.by_name for point in self._at(budget))

    def _at(self, budget: float) -> Iterator[Point]:
        """Runs of a budget that are known to be needed by now; those below it are done."""
        for family in self.families(budget):
            if family.patcher is not None:
                patcher = self.study.patcher_point(family.patcher, budget)
                yield patcher
                if patcher.name not in self.by_name:
                    continue
            if not self._begins(family, budget):
                continue
            yield from self._searched(family, budget)
            if self.best(family, budget) is not None:
                yield from self._seeds(family, budget)

    def _finals(self, budget: float, whole: bool) -> Iterator[Point]:
        for family in self.families(budget):
            seeds = [] if self.best(family, budget) is None else self._seeds(family, budget)
            ended = [point for point in seeds if point.name in self.by_name]
            if ended == seeds or not whole:
                yield from ended

    def _seeds(self, family: Family, budget: float) -> list[Point]:
        best = self.best(family, budget)
        assert best is not None
        seeds = range(self.study.seeds[self.study.budgets.index(budget)])
        return [self.study.point(family, budget, best.size, best.lr, seed) for seed in seeds]

    def _searched(self, family: Family, budget: float) -> list[Point]:
        """Sizes and rates to try, as far as is known by now."""
        key = ("searched", family.name, budget)
        return self._once(key, lambda: self._search(family, budget))  # type: ignore[no-any-return]

    def _search(self, family: Family, budget: float) -> list[Point]:

        def bits(size: int) -> float | None:
            points = self._rates(family, budget, size)
            if any(point.name not in self.by_name for point in points):
                return None
            return min(self.bits(point) for point in points)

        if family.spends < 1:
            return self._as_varied(family, budget)
        start = self._first_size(family, budget)
        sizes = climbed(len(family.sizes), start, self.study.tries("size", budget), bits)
        return [point for size in sizes for point in self._rates(family, budget, size)]

    def _as_varied(self, family: Family, budget: float) -> list[Point]:
        """The best size and rate of the family that does the same with all of the budget."""
        best = self.best(self.study.lineage(family.name)[1], budget)
        assert best is not None
        return [self.study.point(family, budget, best.size, best.lr, 0)]

    def _rates(self, family: Family, budget: float, size: int) -> list[Point]:
        lrs = self.study.lrs
        points = [self.study.point(family, budget, size, lr, 0) for lr in lrs]
        start, tries = self._first_rate(family, budget, size), self.study.tries("rate", budget)

        def bits(index: int) -> float | None:
            name = points[index].name
            return self.bits(points[index]) if name in self.by_name else None

        return [points[index] for index in climbed(len(lrs), start, tries, bits)]

    def _before(self, family: Family, budget: float) -> tuple[Family, float] | None:
        """Whose search, at which budget, says where this one begins; None: nobody's."""
        if family.varies is not None and (family.joins == budget or family.spends < 1):
            return self.study.family(family.varies), budget
        below = self._below(budget)
        return (family, below[-1]) if below else None

    def _begins(self, family: Family, budget: float) -> bool:
        """Has the search ended that this one begins from?"""
        before = self._before(family, budget)
        return before is None or self.best(*before) is not None

    def _first_size(self, family: Family, budget: float) -> int:
        """The best of the search before, or so many above it as the budget's climb says."""
        before = self._before(family, budget)
        if before is None:
            return min(family.first_size, len(family.sizes) - 1)
        best = self.best(*before)
        assert best is not None
        climbs = before[1] < budget and self.study.climb
        climb = self.study.climb[self.study.budgets.index(budget)] if climbs else 0
        return min(best.size + climb, len(family.sizes) - 1)

    def _first_rate(self, family: Family, budget: float, size: int) -> int:
        """The best of the same size, or the one nearest to it, of the search before."""
        before = self._before(family, budget)
        if before is None:
            return min(self.study.first_lr, len(self.study.lrs) - 1)
        points = self._searched(*before)
        near = min({point.size for point in points}, key=lambda other: abs(other - size))
        best = min((p for p in points if p.size == near), key=lambda point: self.bits(point))
        return self.study.lrs.index(best.lr)

    def _rule(self, budget: float) -> list[LeftOut]:
        """Who is left out after a budget that is done."""
        return self._once(("rule", budget), lambda: self._weighed(budget))  # type: ignore[no-any-return]

    def _weighed(self, budget: float) -> list[LeftOut]:
        if not self.is_done(budget):
            return []
        families = [one for one in self.families(budget) if one.spends == 1 and budget < one.leaves]
        bits = {family.name: self.of_seeds(family, budget) for family in families}
        spread, found = self._spread(budget), []
        for group in dict.fromkeys(family.group for family in families):
            names = [family.name for family in families if family.group == group]
            best = min(names, key=lambda name: np.mean(bits[name]))
            for name in names:
                more = float(np.mean(bits[name]) - np.mean(bits[best]))
                error = spread * math.sqrt(1 / len(bits[name]) + 1 / len(bits[best]))
                if name != best and more > CLEARLY * error:
                    found.append(LeftOut(name, budget, best, more, error))
        return found

    def _spread(self, budget: float) -> float:
        """Standard deviation of seeds, pooled over families, at the largest budget with some."""
        for at in reversed([*self._below(budget), budget]):
            groups = [self.of_seeds(family, at) for family in self.families(at)]
            groups = [bits for bits in groups if len(bits) > 1 and math.isfinite(sum(bits))]
            if groups:
                free = sum(len(bits) - 1 for bits in groups)
                return math.sqrt(sum(np.var(bits) * len(bits) for bits in groups) / free)
        return math.inf  # nothing is known: nobody is left out


def bits_of(line: Line) -> float:
    """Validation bits per byte of a run's line; infinite, if it has given up."""
    bits: float | None = line["validation_bits"]
    return math.inf if bits is None else bits


def climbed(count: int, start: int, tries: int, value: Callable[[int], float | None]) -> list[int]:
    """Steps of a ladder to try: three or more as of :func:`bracket`, or the first and those below.

    Arguments are those of :func:`bracket`, but for ``tries``: 1, 2, or 3 for a bracket.
    """
    if tries < 3:
        return list(range(max(0, start + 1 - tries), start + 1))
    return bracket(count, start, value)


def bracket(count: int, start: int, value: Callable[[int], float | None]) -> list[int]:
    """Steps of a ladder to try, until the best of them has a worse one on both sides.

    Args:
        count: steps of the ladder.
        start: where to begin.
        value: of a step, the less the better; None where it is not known yet.

    Returns:
        the steps known to be needed by now, ascending and without a gap; the ends of the ladder
        have no other side.
    """
    low = max(0, min(start - 1, count - 3))
    high = min(count - 1, low + 2)
    while True:
        values = [value(step) for step in range(low, high + 1)]
        if any(v is None for v in values):
            break
        best = low + min(range(len(values)), key=lambda i: values[i] or 0.0)
        if best == low and low > 0:
            low -= 1
        elif best == high and high < count - 1:
            high += 1
        else:
            break
    return list(range(low, high + 1))
