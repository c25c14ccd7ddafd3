"""What a byte of training costs is not what a step costs that happens to compile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from blt.study import costs, read_study, scoring, training
from blt.study.cells import Compared
from blt.study.folder import StudyFolder, overrun
from blt.study.timing import Clock


def test_seconds_are_those_of_the_patchers_training_too(done: Path) -> None:
    out = StudyFolder(done.parent / "out")
    compared = Compared.read(read_study(done), out)
    patched = [of[0] for of in compared.points.values() if of[0].patcher is not None]
    assert patched
    for point in patched:
        line, cost = compared.by_name[point.name], compared.costs[point.name]
        alone = cost["seconds_per_megabyte"] * line["bytes_seen"] / 1e6
        patcher = compared.by_name[str(point.patcher)]["seconds"]
        assert compared.seconds(point) == pytest.approx(alone + patcher)


def test_a_run_that_takes_more_than_its_part_of_a_budget_is_named() -> None:
    assert overrun({"flops": 1e9, "budget": 1e9}) is None
    assert overrun({"flops": 1e9, "budget": 1e9, "spends": 0.8}) == pytest.approx(1.25)


@pytest.mark.parametrize(("weights", "expected"), [((), 1.02), ((1.0, 1.0), 2.0)])
def test_searches_weigh_sources_as_trainings_read_them(
    weights: tuple[float, ...], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_bits", lambda _, pieces: [len(p) * int(p[:1]) for p in pieces])
    sources: list[Any] = [
        SimpleNamespace(name=text, heldout=[text.encode() * 50], train=SimpleNamespace(num_bytes=n))
        for text, n in (("1", 990), ("3", 10))
    ]
    data = SimpleNamespace(weights=weights, context_bytes=64)
    recipe: Any = SimpleNamespace(data=data)
    found = scoring.validation(SimpleNamespace(), sources, recipe, 50)  # type: ignore[arg-type]
    assert found["validation_bits"] == pytest.approx(expected)


def test_as_much_is_held_out_as_searches_go_by(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of prepared text a part is read."""
    asked: list[int] = []

    def opened(_: Any, heldout_bytes: int) -> list[Any]:
        asked.append(heldout_bytes)
        return []

    monkeypatch.setattr(training, "open_text", opened)
    made = replace(read_study(file), validation_bytes=262144)
    point = made.point(made.families[0], made.budgets[0], 0, made.lrs[0], 0)
    training.Training(made, StudyFolder(file.parent), Clock(None), None).sources(point.recipe)
    assert asked == [262144]


def test_seconds_of_steps_are_those_of_most_not_of_one_that_compiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, number = [0.0], [0]

    def step(_: float) -> SimpleNamespace:
        number[0] += 1
        now[0] += 60.0 if number[0] % 10 == 3 else 0.5
        return SimpleNamespace(num_bytes=1000)

    monkeypatch.setattr(costs.time, "monotonic", lambda: now[0])
    model = SimpleNamespace(device=torch.device("cpu"))
    trainer = SimpleNamespace(step=step, model=model)
    assert costs.megabyte_seconds(trainer) == pytest.approx(500.0)  # type: ignore[arg-type]
    assert number[0] == costs.TIMED
