"""How sure is a number? Bootstrap intervals over pieces of text, questions, documents and runs.

Every measure here is a ratio of sums over pieces: bits over bytes, right answers over questions. An
interval is that of the ratio when pieces are drawn again with replacement, from the 2.5th to the
97.5th of a hundred draws. Models that read the same pieces are compared pair by pair: each draw
takes the same pieces of both, so that what is hard for all is not taken for a difference.

* Pieces are drawn within their document, so that what one text contributes stays. Documents of
  fewer than :data:`FEW` pieces are drawn from together: of one piece alone nothing is known.
* Several runs of a family (seeds) are drawn again too, before their pieces. With few runs that is
  an underestimate: of R runs it has (R - 1) / R of their variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DRAWS = 2000
SHARE = 0.95  # of the draws lie within an interval
FEW = 8  # pieces: documents of fewer are one stratum together
CHUNK = 2**22  # counts of pieces that are drawn at the same time

Values = npt.ArrayLike  # one number a piece [P], or of each run [R, P]
Draws = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A measured value, and where 95 of a hundred draws of its pieces lie."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """Another model (or family) against the first one, on the same pieces."""

    difference: Interval  # other - first
    ratio: Interval  # other / first


def interval(
    values: Values, sizes: Values | None = None, strata: Sequence[int] | None = None, seed: int = 0
) -> Interval:
    """Sum of ``values`` over sum of ``sizes``, with its interval.

    Args:
        values: of each piece [P], such as its bits; of several runs [R, P], whose mean is taken.
        sizes: of each piece [P], such as its bytes, or of each run's own [R, P]; None: 1 each.
        strata: the document of each piece [P]; None: all are of one.
        seed: of the draws.

    Raises:
        ValueError: no pieces, or other numbers of values, sizes and strata.
    """
    found = _Bootstrap(values, sizes=sizes, strata=strata, seed=seed)
    return _interval(found.measured[0], found.draws[0])


def paired(
    first: Values,
    other: Values,
    sizes: Values | None = None,
    strata: Sequence[int] | None = None,
    seed: int = 0,
) -> Pair:
    """How much more ``other`` is than ``first``, each [P] or [R, P] of its own runs.

    ``sizes`` [P], ``strata``, ``seed`` and errors are as of :func:`interval`. The ratio to a
    ``first`` of 0 is infinite, or not a number.
    """
    found = _Bootstrap(first, other, sizes=sizes, strata=strata, seed=seed)
    (one, two), (ones, twos) = found.measured, found.draws
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = _interval(float(np.divide(two, one)), np.divide(twos, ones))
    return Pair(_interval(two - one, twos - ones), ratio)


def documents_of(pieces: Sequence[Sequence[object]]) -> list[int]:
    """The strata of pieces that are listed by document."""
    return [number for number, group in enumerate(pieces) for _ in group]


def _interval(value: float, draws: Draws) -> Interval:
    edges = (1 - SHARE) / 2, (1 + SHARE) / 2
    low, high = np.quantile(draws, edges)
    return Interval(float(value), float(low), float(high))


class _Bootstrap:
    """Measures of families on the same pieces, and what they are on pieces drawn again."""

    measured: list[float]
    draws: list[Draws]  # [DRAWS] of each family

    def __init__(
        self,
        *families: Values,
        sizes: Values | None,
        strata: Sequence[int] | None,
        seed: int,
    ) -> None:
        runs = [np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in families]
        count = runs[0].shape[1]
        if count == 0:
            raise ValueError("an interval needs at least one piece")
        whole = np.ones(count) if sizes is None else np.asarray(sizes, dtype=np.float64)
        whole = np.atleast_2d(whole)  # [1, P], or [R, P] of the one family
        table = np.concatenate([*runs, whole])  # [all runs + 1 or R, P]; refuses other counts
        chance = np.random.default_rng(seed)
        totals, drawn = table.sum(1), _drawn(table, _merged(count, strata), chance)
        of_totals, of_drawn = totals[-len(whole) :], drawn[-len(whole) :]
        self.measured, self.draws = [], []
        row = 0
        for family in runs:
            rows = slice(row, row + len(family))
            self.measured.append(float((totals[rows] / of_totals).mean()))
            weights = _run_weights(len(family), chance)  # [R, DRAWS]
            with np.errstate(invalid="ignore", divide="ignore"):  # a draw may have no size: NaN
                self.draws.append((drawn[rows] / of_drawn * weights).sum(0))
            row += len(family)


def _run_weights(count: int, chance: np.random.Generator) -> Draws:
    """How much each run counts in each draw  # [R, DRAWS]."""
    if count == 1:
        return np.ones((1, DRAWS))
    return chance.multinomial(count, [1 / count] * count, size=DRAWS).T / count


def _drawn(table: Draws, strata: npt.NDArray[np.int64], chance: np.random.Generator) -> Draws:
    """Sums of the columns of ``table`` [K, P], drawn again within their strata  # [K, DRAWS].

    Columns that are alike are drawn as one: of right and wrong answers there are two kinds.
    """
    kinds, times = np.unique(np.concatenate([strata[None], table]), axis=1, return_counts=True)
    sums = np.zeros((len(table), DRAWS))
    for stratum in np.unique(kinds[0]):
        own = kinds[0] == stratum
        columns, count = kinds[1:, own], times[own]
        most = max(1, CHUNK // len(count))
        for start in range(0, DRAWS, most):
            size = min(most, DRAWS - start)
            picked = chance.multinomial(count.sum(), count / count.sum(), size=size)  # [D, kinds]
            sums[:, start : start + size] += columns @ picked.T
    return sums


def _merged(count: int, strata: Sequence[int] | None) -> npt.NDArray[np.int64]:
    """Strata of pieces [P], those of few pieces made one, -1."""
    if strata is None:
        return np.zeros(count, dtype=np.int64)
    if len(strata) != count:
        raise ValueError(f"{count} pieces, but {len(strata)} strata")
    _, inverse, counts = np.unique(np.asarray(strata), return_inverse=True, return_counts=True)
    return np.where(counts[inverse] < FEW, -1, inverse)
