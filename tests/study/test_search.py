"""What a study runs next: ladders of sizes and rates, seeds, and who goes on."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.study.config import Family, PatcherModel, Point, Study
from blt.study.search import Search, bracket

LRS = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
BASE = {
    "data": {"sources": ["text.txt"], "context_bytes": 64, "batch_bytes": 256},
    "train": {},
}
Truth = Callable[[Point], float]  # validation bits of a run


def family(name: str, group: str, sizes: int = 6) -> Family:
    ladder = tuple((f"byte_model.ff_dim={8 * (n + 1)}",) for n in range(sizes))
    return Family(name, group, {"kind": "byte"}, ladder)


def study(*families: Family, budgets: int = 2, seeds: int = 2, **more: Any) -> Study:
    return Study(
        budgets=tuple(10.0 ** (7 + n) for n in range(budgets)),
        seeds=(seeds,) * budgets,
        lrs=LRS,
        base=BASE,
        heldout={"books": {"one": ("one.txt",)}},
        families=families,
        **more,
    )


def bowl(best_size: float, best_lr: float, least: float) -> Truth:
    """Fewest bits at one size and rate; seeds differ a little."""

    def bits(point: Point) -> float:
        away = (point.size - best_size) ** 2 + (LRS.index(point.lr) - best_lr) ** 2
        return least + 0.01 * away + 0.001 * point.seed

    return bits


def line(point: Point, bits: float) -> dict[str, Any]:
    found = None if math.isnan(bits) else bits
    return {"name": point.name, "validation_bits": found, "flops": point.budget}


def play(
    made: Study,
    truth: dict[str, Truth],
    chance: random.Random | None = None,
    only: Sequence[str] = (),
) -> Search:
    """Run a study whose outcome is known: in any order, or all at once that can be run."""
    lines: list[dict[str, Any]] = []
    while points := Search(made, lines, only).wanted():
        some = points if chance is None else chance.sample(points, chance.randint(1, len(points)))
        lines += [line(point, truth[point.family](point)) for point in some]
        assert len(lines) < 1000
    names = [each["name"] for each in lines]
    assert len(names) == len(set(names))
    return Search(made, lines, only)


@given(st.integers(1, 9), st.integers(0, 8), st.data())
def test_a_ladder_is_climbed_until_its_lowest_step_lies_between_two_others(
    count: int, start: int, data: st.DataObject
) -> None:
    best = data.draw(st.integers(0, count - 1))
    known: dict[int, float] = {}
    for _ in range(100):
        steps = bracket(count, min(start, count - 1), known.get)
        missing = [step for step in steps if step not in known]
        if not missing:
            break
        step = data.draw(st.sampled_from(missing))
        known[step] = abs(step - best)
    assert steps == list(range(steps[0], steps[-1] + 1))
    assert best in steps
    assert len(steps) >= min(3, count)
    assert best - 1 in steps or best == 0
    assert best + 1 in steps or best == count - 1
    assert set(known) == set(steps)  # nothing was tried in vain


@given(st.integers(0, 5), st.integers(0, 4), st.randoms(use_true_random=False))
def test_the_best_size_and_rate_is_found_whatever_ends_first(
    size: int, rate: int, chance: random.Random
) -> None:
    only = family("flat", "flat")
    search = play(study(only, budgets=1), {"flat": bowl(size, rate, 2.0)}, chance)
    best = search.best(only, 1e7)
    assert best is not None
    assert (best.size, best.lr) == (size, LRS[rate])
    assert [point.seed for point in search.chosen()] == [0, 1]
    assert {point.lr for point in search.chosen()} == {LRS[rate]}


def test_every_family_is_searched_alike() -> None:
    families = (family("one", "a"), family("two", "b"))
    same = bowl(2, 1, 2.0)
    search = play(study(*families), {"one": same, "two": same})
    counts = {
        name: sorted(each[len(name) :] for each in search.by_name if each.startswith(name))
        for name in ("one", "two")
    }
    assert counts["one"] == counts["two"]
    assert len(search.sizes(families[0], 1e7)) >= 3


def test_of_a_group_the_best_goes_on_and_those_that_are_not_clearly_worse() -> None:
    families = tuple(family(name, name[0]) for name in ("a1", "a2", "a3", "b1"))
    truth = {
        "a1": bowl(2, 1, 2.000),
        "a2": bowl(2, 1, 2.001),  # within two standard errors: seeds differ by 0.001
        "a3": bowl(2, 1, 2.100),
        "b1": bowl(2, 1, 3.000),  # worse than all of a, and alone in its group
    }
    search = play(study(*families), truth)
    assert [one.name for one in search.families(1e8)] == ["a1", "a2", "b1"]
    (out,) = [out for out in search.left_out if out.after == 1e7]
    assert (out.family, out.best) == ("a3", "a1")
    assert out.more_bits == pytest.approx(0.1)
    assert {p.family for p in search.chosen() if p.budget == 1e8} == {"a1", "a2", "b1"}


def test_nobody_is_left_out_where_no_spread_of_seeds_is_known() -> None:
    families = (family("a1", "a"), family("a2", "a"))
    truth = {"a1": bowl(2, 1, 2.0), "a2": bowl(2, 1, 5.0)}
    assert play(study(*families, seeds=1), truth).left_out == []


def test_a_budget_begins_at_what_was_best_at_the_one_below() -> None:
    only = family("flat", "flat")

    def truth(point: Point) -> float:
        return bowl(1 if point.budget == 1e7 else 3, 2, 2.0)(point)

    search = play(study(only), {"flat": truth})
    assert search.sizes(only, 1e7) == [0, 1, 2]
    assert search.sizes(only, 1e8) == [0, 1, 2, 3, 4]


def test_some_families_can_be_run_first_and_are_compared_where_they_have_come() -> None:
    families = tuple(family(name, name[0]) for name in ("a1", "a2", "b1"))
    truth = {family.name: bowl(2, 1, 2.0) for family in families}
    whole = study(*families)
    first = play(whole, truth, only=["b1", "a1"])
    assert {point.family for point in first.chosen() if point.budget == 1e8} == {"a1", "b1"}
    then = Search(whole, [*first.by_name.values()])
    assert then.chosen() == first.chosen()
    assert then.beaten() == first.beaten()
    assert not then.is_done(1e7)
    assert {point.family for point in then.wanted()} == {"a2"}
    assert {point.budget for point in then.wanted()} == {1e7}
    assert then.best(families[1], 1e8) is None


@pytest.mark.parametrize(("rates", "tried"), [(1, {2}), (2, {1, 2})])
def test_fewer_rates_are_those_of_the_budget_below(rates: int, tried: set[int]) -> None:
    only = family("flat", "flat")
    made = study(only, rate_tries=(3, rates), size_tries=(3, 1))
    search = play(made, {"flat": bowl(1, 2, 2.0)})
    at_second = [Search(made, []).study.point(only, 1e8, 1, lr, 0).name for lr in LRS]
    assert {n for n, name in enumerate(at_second) if name in search.by_name} == tried


@pytest.mark.parametrize(("climb", "tried"), [(0, {1, 2, 3}), (1, {2, 3, 4})])
def test_a_budget_begins_at_the_best_size_below_or_as_far_above_as_it_says(
    climb: int, tried: set[int]
) -> None:
    only = family("flat", "flat")
    made = study(only, climb=(0, climb))
    below, above = bowl(2, 2, 2.0), bowl(2 + climb, 2, 2.0)
    truth = {"flat": lambda point: (below if point.budget == 1e7 else above)(point)}
    assert set(play(made, truth).sizes(only, 1e8)) == tried
    assert made.until(1e7).climb == (0,)


@pytest.mark.parametrize("climb", [(0, -1), (1, 0), (0, 0, 0)])
def test_a_climb_that_no_budget_can_take_is_refused(climb: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="climb"):
        study(family("flat", "flat"), climb=climb)


def variant(of: str, name: str = "wide", joins: float = 1e8) -> Family:
    return replace(family(name, of), varies=of, joins=joins)


@given(st.integers(0, 5), st.integers(0, 4), st.randoms(use_true_random=False))
def test_a_variant_begins_where_the_family_that_it_varies_has_ended(
    size: int, rate: int, chance: random.Random
) -> None:
    base, wide = family("flat", "flat"), variant("flat")
    made = study(base, wide, rate_tries=(3, 1), climb=(0, 1))
    truth = {"flat": bowl(size, rate, 2.0), "wide": bowl(size, rate, 2.0)}
    search = play(made, truth, chance)
    points = all_points(made, wide)
    of_wide = [points[name] for name in search.by_name if name in points]
    assert {point.budget for point in of_wide} == {1e8}
    assert {point.lr for point in of_wide} == {LRS[rate]}
    low = max(0, min(size - 1, 3))
    assert {point.size for point in of_wide} == {low, low + 1, low + 2}
    found = search.best(wide, 1e8)
    assert found is not None
    assert found.size == size
    assert search.families(1e7) == [base]
    assert search.is_done(1e8)


def all_points(made: Study, of: Family) -> dict[str, Point]:
    """Those that a family may be tried at, by their names."""
    every = product(made.budgets, range(len(of.sizes)), LRS, range(2))
    points = (made.point(of, budget, size, lr, seed) for budget, size, lr, seed in every)
    return {point.name: point for point in points}


def test_who_runs_a_variant_alone_runs_what_it_varies_too() -> None:
    made = study(family("flat", "flat"), family("other", "other"), variant("flat"))
    truth = dict.fromkeys(("flat", "wide"), bowl(1, 2, 2.0))
    search = play(made, truth, only=["wide"])
    assert {name.split("-")[0] for name in search.by_name} == {"flat", "wide"}


def test_a_variant_is_left_out_with_the_family_that_it_varies() -> None:
    families = family("a1", "a"), family("a2", "a"), variant("a2", joins=1e9)
    truth = {"a1": bowl(2, 1, 2.0), "a2": bowl(2, 1, 5.0)}  # none of the variant's is asked for
    search = play(study(*families, budgets=3), truth)
    assert [out.family for out in search.left_out] == ["a2"]
    assert [family.name for family in search.families(1e9)] == ["a1"]


def test_a_variant_that_beats_who_it_varies_goes_on_without_it() -> None:
    """It is judged by its own bits once it has joined, and who is the same goes with it."""
    quick = replace(variant("flat", "quick"), varies="wide", spends=0.75)
    made = study(family("flat", "flat"), variant("flat"), quick, budgets=3, rate_tries=(3, 1, 1))
    better, worse = bowl(2, 1, 2.0), bowl(2, 1, 5.0)
    search = play(made, {"flat": worse, "wide": better, "quick": worse})
    assert [out.family for out in search.left_out] == ["flat"]
    assert [family.name for family in search.families(1e9)] == ["wide", "quick"]
    search = play(made, {"flat": better, "wide": worse, "quick": better})
    assert [out.family for out in search.left_out] == ["wide"]
    assert [family.name for family in search.families(1e9)] == ["flat"]


def test_a_variant_that_leaves_is_searched_there_and_takes_nobody_with_it() -> None:
    """It is the better one, and who is clearly worse goes on without it."""
    once = replace(variant("flat", "once"), leaves=1e8)
    families = family("flat", "flat"), once, variant("flat", "later", joins=1e9)
    made = study(*families, budgets=3, rate_tries=(3, 1, 1))
    better, worse = bowl(2, 1, 2.0), bowl(2, 1, 5.0)
    search = play(made, {"flat": worse, "once": better, "later": better})
    assert {out.after for out in search.left_out} == {1e9}
    there = [[one.name for one in search.families(budget)] for budget in made.budgets]
    assert there == [["flat"], ["flat", "once"], ["flat", "later"]]
    assert {p.budget for p in search.chosen() if p.family == "once"} == {1e8}


@settings(max_examples=10)
@given(st.integers(0, 5), st.integers(0, 4), st.floats(0.5, 4.0))
def test_who_spends_less_is_as_who_spends_all_is_and_is_not_weighed(
    size: int, rate: int, worse: float
) -> None:
    """Of a family or of a variant: one run for each seed, of the best size and rate."""
    families = family("flat", "flat"), variant("flat"), family("other", "flat")
    quick = replace(variant("flat", "quick"), varies="wide", spends=0.75)
    made = study(*families, quick, budgets=3, rate_tries=(3, 1, 1))
    truth = dict.fromkeys(("flat", "wide", "other"), bowl(size, rate, 2.0))
    search = play(made, truth | {"quick": bowl(0, 0, worse)})
    assert search.left_out == []
    for budget in made.budgets[1:]:
        found, best = search.best(quick, budget), search.best(made.family("wide"), budget)
        assert found is not None
        assert best is not None
        assert (found.size, found.lr) == (best.size, best.lr)
        tried = [p for p in search.chosen() if (p.family, p.budget) == ("quick", budget)]
        assert len(tried) == made.seeds[made.budgets.index(budget)]
        assert {p.recipe.train.flops for p in tried} == {0.75 * budget}
    chosen = {point.name for point in search.chosen() if point.family == "quick"}
    assert {name for name in search.by_name if name.startswith("quick-")} == chosen
    alone = play(made, truth | {"quick": bowl(0, 0, worse)}, only=["quick"])
    assert {name.split("-")[0] for name in alone.by_name} == {"flat", "wide", "quick"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spends": 0.0}, "above 0 and at most 1"),
        ({"spends": 1.5}, "above 0 and at most 1"),
        ({"spends": 0.5}, "spends needs varies"),
        ({"spends": 0.5, "varies": "wyde", "joins": 1e8}, "no 'wyde' that has its group.*wide"),
        ({"spends": 0.5, "varies": "wide", "joins": 1e7}, "no 'wide' that has its group"),
        ({"spends": 0.5, "varies": "less", "joins": 1e8}, "no 'less' that has its group"),
        ({"spends": 0.5, "varies": "once", "joins": 1e8}, "no 'once' that has its group"),
        (
            {"spends": 0.5, "varies": "flat", "joins": 1e8, "sizes": (("byte_model.layers=3",),)},
            "no 'flat' that has its group, recipe, sizes and patcher",
        ),
        (
            {"spends": 0.5, "varies": "flat", "joins": 1e8, "recipe": {"kind": "blt"}},
            "no 'flat' that has its group, recipe, sizes and patcher",
        ),
        (
            {"spends": 0.5, "varies": "flat", "joins": 1e8, "patcher": "tiny"},
            "not with a patcher",
        ),
    ],
)
def test_who_spends_less_than_nobody_is_refused(changes: dict[str, Any], said: str) -> None:
    less = replace(variant("flat", "less"), spends=0.5)
    once = replace(variant("flat", "once"), leaves=1e8)
    others = family("flat", "flat"), variant("flat"), once, less
    with pytest.raises(ValueError, match=said):
        study(*others, replace(family("quick", "flat"), **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"varies": "flat"}, "belong together"),
        ({"joins": 1e8}, "belong together"),
        ({"leaves": 1e8}, "leaves is of a variant"),
        ({"varies": "flat", "joins": 1e8, "leaves": 1e7}, "not below the budget it joins at"),
        ({"varies": "flut", "joins": 1e8}, "no 'flut' that varies nothing.*flat"),
        ({"varies": "wide", "joins": 1e8}, "no 'wide' that varies nothing"),
    ],
)
def test_a_variant_of_nothing_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        study(family("flat", "flat"), replace(family("wide", "flat"), **changes))


def test_a_patcher_is_trained_before_who_needs_it_and_once_for_all() -> None:
    recipe = {"kind": "blt", "model": {"patching": {"rule": "entropy"}}}
    sizes = (("model.global_layers=1",), ("model.global_layers=2",))
    families = tuple(Family(name, name, recipe, sizes, patcher="small") for name in ("one", "two"))
    patcher = PatcherModel("small", {"kind": "byte"}, share=0.1)
    made = study(*families, budgets=1, patchers=(patcher,))
    (first,) = Search(made, []).wanted()
    assert first.name.startswith("patcher-small-1e6")
    assert first.recipe.train.flops == pytest.approx(1e6)
    after = Search(made, [line(first, 3.0)]).wanted()
    assert {point.family for point in after} == {"one", "two"}
    assert {point.patcher for point in after} == {first.name}


def test_a_run_without_a_number_is_never_the_best() -> None:
    only = family("flat", "flat")

    def truth(point: Point) -> float:
        return float("nan") if point.lr == LRS[2] else bowl(1, 2, 2.0)(point)

    best = play(study(only, budgets=1), {"flat": truth}).best(only, 1e7)
    assert best is not None
    assert best.lr in (LRS[1], LRS[3])


def test_weights_of_beaten_runs_are_named_and_never_those_of_the_best() -> None:
    only = family("flat", "flat")
    search = play(study(only), {"flat": bowl(2, 1, 2.0)})
    chosen = {point.name for point in search.chosen()}
    beaten = {point.name for point in search.beaten()}
    assert not chosen & beaten
    assert chosen | beaten == set(search.by_name)
