"""What is reported reaches TensorBoard and Weights & Biases."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blt.errors import UserError
from blt.train import Recipe, Report, train_recipe


def tracked(recipe: Recipe, *names: Any) -> Recipe:
    return replace(recipe, train=replace(recipe.train, trackers=names))


def test_event_files_hold_every_report(byte_recipe: Recipe, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reports: list[Report] = []
    train_recipe(tracked(byte_recipe, "tensorboard"), tmp_path / "run", on_progress=reports.append)
    found = events.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    points = {point.step: point.value for point in found.Scalars("bits_per_byte")}
    assert points == pytest.approx({r.step: r.bits_per_byte for r in reports})
    assert len(found.Scalars("heldout_bits_per_byte")) == byte_recipe.train.evals


def test_wandb_gets_every_report(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[int, dict[str, float]] = {}
    run = SimpleNamespace(log=lambda values, step: logged.update({step: values}), id="abc")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: run))
    reports: list[Report] = []
    train_recipe(tracked(byte_recipe, "wandb"), tmp_path / "run", on_progress=reports.append)
    assert {step: v["bits_per_byte"] for step, v in logged.items()} == {
        report.step: report.bits_per_byte for report in reports
    }


def test_a_resumed_run_goes_on_there_and_no_step_is_told_twice(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    begun: list[str | None] = []

    def init(**options: Any) -> Any:
        begun.append(options["id"])
        return SimpleNamespace(log=lambda values, step: None, id=options["id"] or "abc")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    run, recipe = tmp_path / "run", tracked(byte_recipe, "wandb", "tensorboard")

    def kill(report: Report) -> None:  # after steps that no checkpoint has
        if report.step == 6:
            raise RuntimeError("killed")

    train_recipe(replace(recipe, train=replace(recipe.train, steps=4)), run)
    with pytest.raises(RuntimeError, match="killed"):
        train_recipe(recipe, run, resume=True, on_progress=kill)
    reports: list[Report] = []
    train_recipe(recipe, run, resume=True, on_progress=reports.append)
    assert begun == [None, "abc", "abc"]
    found = events.EventAccumulator(str(run / "tensorboard")).Reload()
    steps = [point.step for point in found.Scalars("bits_per_byte")]
    assert steps == list(range(1, reports[-1].step + 1))


def test_one_that_is_not_installed_is_named(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        train_recipe(tracked(byte_recipe, "wandb"), tmp_path / "run")
