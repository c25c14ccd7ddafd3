"""Intervals are those of a plain bootstrap, hold what they should, and pair what is alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.evals.intervals import DRAWS, FEW, Interval, documents_of, interval, paired
from blt.evals.rows import Measured, Shown, accuracy, mean_of, with_edges

numbers = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), min_size=1, max_size=30)


def width(found: Interval) -> float:
    return found.high - found.low


@given(numbers, st.integers(0, 5))
@settings(max_examples=25)
def test_the_value_is_the_ratio_of_the_sums_and_a_seed_gives_the_same_interval(
    pieces: list[tuple[float, int]], seed: int
) -> None:
    bits, sizes = [list(column) for column in zip(*pieces, strict=True)]
    found = interval(bits, sizes, seed=seed)
    assert found == interval(bits, sizes, seed=seed)
    assert found.value == pytest.approx(sum(bits) / sum(sizes))
    rates = [one / size for one, size in pieces]
    assert min(rates) - 1e-9 <= found.low <= found.high <= max(rates) + 1e-9


def test_an_interval_is_that_of_a_plain_bootstrap() -> None:
    chance = np.random.default_rng(1)
    bits, sizes = chance.normal(60, 20, 40), chance.integers(10, 50, 40)
    strata = [0] * 10 + [1] * 30
    slow = []
    for _ in range(4000):
        picked = [*chance.integers(0, 10, 10), *chance.integers(10, 40, 30)]
        slow.append(bits[picked].sum() / sizes[picked].sum())
    low, high = np.quantile(slow, [0.025, 0.975])
    found = interval(bits, sizes, strata)
    assert found.low == pytest.approx(low, rel=0.02)
    assert found.high == pytest.approx(high, rel=0.02)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    chance = np.random.default_rng(2)
    held = 0
    for seed in range(100):
        right = (chance.random(200) < 0.6) * 1.0
        found = interval(right, seed=seed)
        held += found.low <= 0.6 <= found.high
    assert 88 <= held <= 100


def test_pieces_are_drawn_within_their_document() -> None:
    easy, hard = [1.0] * FEW, [9.0] * FEW  # alike within, unlike between
    strata = [0] * FEW + [1] * FEW
    assert width(interval([*easy, *hard], strata=strata)) == 0
    assert width(interval([*easy, *hard])) > 1


def test_documents_of_few_pieces_are_drawn_from_together() -> None:
    values = [float(number) for number in range(20)]
    assert interval(values, strata=range(20)) == interval(values)


def test_runs_may_have_pieces_of_their_own_sizes() -> None:
    """As texts that each wrote itself: every run's values go over its own sizes."""
    chance = np.random.default_rng(4)
    values, sizes = chance.uniform(0, 9, (3, 20)), chance.integers(1, 50, (3, 20))
    found = interval(values, sizes)
    assert found.value == pytest.approx((values.sum(1) / sizes.sum(1)).mean())
    assert found.low < found.value < found.high
    same = np.repeat(sizes[:1], 3, axis=0)
    assert interval(values, same) == interval(values, sizes[0])


def test_what_is_hard_for_both_models_is_no_difference() -> None:
    chance = np.random.default_rng(3)
    first = chance.normal(50, 20, 100)
    found = paired(first, first + 0.5 + chance.normal(0, 0.1, 100))
    assert found.difference.low > 0.4
    assert found.difference.high < 0.6
    assert width(interval(first)) > 5
    assert found.ratio.value == pytest.approx(1 + 0.5 / first.mean(), rel=0.05)
    assert paired([0.0], [1.0]).ratio.value == float("inf")


def test_runs_of_a_family_are_a_second_level() -> None:
    chance = np.random.default_rng(4)
    pieces = chance.normal(50, 1, 500)
    runs = np.stack([pieces, pieces + 5, pieces - 5])
    found = interval(runs)
    assert found.value == pytest.approx(pieces.mean(), rel=1e-3)
    assert width(found) > 5 > 1 > width(interval(pieces))
    other = paired(runs, runs - 20)
    assert other.difference.value == pytest.approx(-20)
    assert other.difference.low < -22  # runs of the two are drawn apart
    assert other.difference.high < 0


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one piece"):
        interval([])
    with pytest.raises(ValueError, match="2 pieces, but 1 strata"):
        interval([1, 2], strata=[0])
    with pytest.raises(ValueError, match="dimension"):
        paired([1, 2], [1, 2, 3])
    assert documents_of([["a", "b"], [], ["c"]]) == [0, 0, 2]
    assert DRAWS >= 2000


def test_rows_of_a_second_model_are_compared_with_the_first_ones() -> None:
    shown = Shown(several=True)
    first = shown.row(Measured({"text": "a", "acc": 2.0, "n": 2}, "acc", [1.0, 3.0]))
    assert list(first)[:4] == ["text", "acc", "low", "high"]
    assert first["difference"] is None
    shown.next_model()
    other = shown.row(Measured({"text": "a", "acc": 3.0, "n": 2}, "acc", [2.0, 4.0]))
    assert (other["difference"], other["difference_low"], other["ratio"]) == (1.0, 1.0, 1.5)
    assert list(other) == list(first)
    odd = shown.row(Measured({"text": "a", "acc": 3.0, "n": 1}, "acc", [3.0]))
    assert odd["difference"] is None  # other pieces: nothing to pair


def test_an_end_that_is_not_known_is_none() -> None:
    some = Shown().row(Measured({"name": "a", "share": 0.0}, "share", [0.0, 1.0], [0, 50]))
    assert (some["low"], some["high"]) == (None, None)  # a draw may have no size at all
    assert with_edges("exact", [1.0]) == {"exact": 1.0, "exact_low": None, "exact_high": None}


def test_a_mean_weighs_every_row_the_same() -> None:
    rows = [
        accuracy({"task": "a"}, [1.0, 1.0], 0.5),
        accuracy({"task": "b"}, [1.0, 0.0, 0.0, 0.0], 0.25),
        accuracy({"task": "of nothing"}, [], 0.0),
    ]
    mean = mean_of("mean", rows)
    assert mean.row == {"task": "mean", "questions": 6, "acc": 0.625, "guess": 0.375}
    assert interval(mean.values, mean.sizes, mean.strata).value == pytest.approx(0.625)


def test_a_mean_of_ratios_has_no_uncertainty_of_lengths_alone() -> None:
    """Bits of long and short words, all of 2 and of 3 bits a byte: only the sizes differ."""
    sizes = [float(n) for n in range(1, 41)]
    rows = [
        Measured({"task": name, "bits": bits}, "bits", [bits * size for size in sizes], sizes)
        for name, bits in (("a", 2.0), ("b", 3.0))
    ]
    mean = mean_of("mean", rows)
    found = interval(mean.values, mean.sizes, mean.strata)
    assert (found.value, found.low, found.high) == pytest.approx((2.5, 2.5, 2.5))
