"""Trainings learn, and one that was interrupted ends exactly like one that was not."""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt.checkpoint.pretrained import load_patcher
from blt.errors import UserError
from blt.lm import LanguageModel
from blt.patching import Patcher
from blt.train import Recipe, Report, job, train_recipe
from blt.train.interrupt import StopRequest
from blt.train.trainer import Step, Trainer


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def losses(run: Path) -> list[float]:
    return [event["bits_per_byte"] for event in events(run, "train")]


def assert_same_weights(a: LanguageModel, b: LanguageModel) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize("kind", ["byte", "blt", "token"])
def test_a_training_learns_and_leaves_a_whole_run(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe: Recipe = request.getfixturevalue(f"{kind}_recipe")
    recipe = replace(recipe, train=replace(recipe.train, steps=40))
    reports: list[Report] = []
    model = train_recipe(recipe, tmp_path / "run", on_progress=reports.append)
    assert losses(tmp_path / "run")[-1] < 0.7 * losses(tmp_path / "run")[0]
    assert reports[-1].progress == 1.0
    assert reports[-1].step == 40
    assert reports[-1].skipped == 0
    heldout = [r.heldout_bits_per_byte for r in reports if r.heldout_bits_per_byte is not None]
    assert len(heldout) == recipe.train.evals
    assert_same_weights(model, blt.load(tmp_path / "run" / "checkpoint"))
    if kind == "token":
        assert all(r.patch_size is not None and r.patch_size > 1.5 for r in reports)
        return
    assert model.generate(b"9", max_bytes=5) is not None
    (patching,) = events(tmp_path / "run", "patching")
    assert patching["heldout_patch_size"] > 1


def test_the_entropy_model_stays_as_it_was_and_cuts_as_asked(
    blt_recipe: Recipe, entropy_folder: Path, tmp_path: Path
) -> None:
    model = train_recipe(blt_recipe, tmp_path / "run")
    assert isinstance(model, blt.BLT)
    assert model.entropy_model is not None
    patcher = load_patcher(entropy_folder)
    for name, tensor in patcher.entropy_model.state_dict().items():
        assert torch.equal(model.entropy_model.state_dict()[name], tensor)
    # Both thresholds were calibrated on the same text for the same size.
    assert model.config.patching.threshold == pytest.approx(patcher.config.threshold, abs=1e-3)
    (patching,) = events(tmp_path / "run", "patching")
    assert patching["heldout_patch_size"] == pytest.approx(blt_recipe.target_patch_size, rel=0.3)


@pytest.mark.parametrize("kind", ["byte", "blt", "token"])
@pytest.mark.parametrize(("how", "optimizer"), [("ctrl-c", "adamw"), ("crash", "muon")])
def test_a_resumed_training_is_the_uninterrupted_one(
    kind: str, how: str, optimizer: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe: Recipe = request.getfixturevalue(f"{kind}_recipe")
    # A crash loses what came after the last checkpoint, so it needs one; Ctrl-C writes its own.
    every = 1e-9 if how == "crash" else 1e9
    train = replace(recipe.train, checkpoint_every_seconds=every, optimizer=optimizer)
    recipe = replace(recipe, train=train)

    def interrupt(report: Report) -> None:
        if report.step == 3:
            if how == "crash":
                raise ZeroDivisionError
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ZeroDivisionError if how == "crash" else KeyboardInterrupt) as stopped:
        train_recipe(recipe, tmp_path / "cut", on_progress=interrupt)
    if how == "ctrl-c":
        assert "--resume" in str(stopped.value)
        assert str(tmp_path / "cut" / "checkpoint") in str(stopped.value)
    resumed = train_recipe(recipe, tmp_path / "cut", resume=True)
    whole = train_recipe(recipe, tmp_path / "whole")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert_same_weights(resumed, whole)


def test_what_a_resumed_training_draws_is_what_it_would_have_drawn(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From PyTorch's generator, as dropout would."""
    drawn: list[float] = []
    step = Trainer.step

    def drawing_step(self: Trainer, progress: float) -> Step:
        drawn.append(float(torch.rand((), dtype=torch.float32)))
        if self.steps == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return step(self, progress)

    monkeypatch.setattr(Trainer, "step", drawing_step)
    stop_at = -1
    train_recipe(byte_recipe, tmp_path / "whole")
    whole, stop_at = list(drawn), 3
    drawn.clear()
    with pytest.raises(KeyboardInterrupt):
        train_recipe(byte_recipe, tmp_path / "cut")
    stop_at = -1
    torch.manual_seed(99)
    train_recipe(byte_recipe, tmp_path / "cut", resume=True)
    assert drawn == whole


def test_sigterm_may_come_twice_and_a_second_ctrl_c_acts(request: pytest.FixtureRequest) -> None:
    # A shell's background jobs ignore it.
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, old))
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
            assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_resuming_a_finished_run_changes_nothing(byte_recipe: Recipe, tmp_path: Path) -> None:
    first = train_recipe(byte_recipe, tmp_path / "run")
    reports = events(tmp_path / "run", "train")
    assert_same_weights(first, train_recipe(byte_recipe, tmp_path / "run", resume=True))
    assert events(tmp_path / "run", "train") == reports


def test_a_kill_at_the_very_end_leaves_no_line_twice(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    train_recipe(byte_recipe, run)
    once = metrics.read_text()
    train_recipe(byte_recipe, run, resume=True)  # as if it had been killed after its last line
    assert metrics.read_text() == once
    metrics.write_text(once.removesuffix("\n")[:-5])  # and within it
    train_recipe(byte_recipe, run, resume=True)
    assert metrics.read_text() == once


def test_a_run_taken_up_after_its_end_keeps_a_threshold_that_fits_its_weights(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train_recipe(byte_recipe, run)
    first = load_patcher(run / "checkpoint").config
    train_recipe(byte_recipe, run, resume=True)
    assert load_patcher(run / "checkpoint").config == first
    longer = replace(byte_recipe, train=replace(byte_recipe.train, steps=16))
    train_recipe(longer, run, resume=True)
    logged = events(run, "patching")
    assert [event["step"] for event in logged] == [8, 16]
    assert logged[1]["threshold"] == load_patcher(run / "checkpoint").config.threshold
    assert logged[1]["threshold"] != logged[0]["threshold"] == first.threshold


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    def crash(_: Report) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_recipe(byte_recipe, tmp_path / "run", on_progress=crash)
    train_recipe(byte_recipe, tmp_path / "run", resume=True)
    steps = [event["step"] for event in events(tmp_path / "run", "train")]
    assert steps == list(range(1, byte_recipe.train.steps + 1))  # type: ignore[operator]
    assert len(events(tmp_path / "run", "data")) == 1


def test_resuming_with_other_text_is_refused(byte_recipe: Recipe, tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_bytes(b"some text of my own, " * 50)
    recipe = replace(byte_recipe, data=replace(byte_recipe.data, sources=(str(source),)))
    train_recipe(recipe, tmp_path / "run")
    source.write_bytes(b"some other text, " * 50)
    with pytest.raises(UserError, match="text to train on has changed"):
        train_recipe(recipe, tmp_path / "run", resume=True)


@pytest.mark.parametrize("kind", ["byte", "blt"])
def test_a_checkpoint_of_another_shape_is_refused(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe: Recipe = request.getfixturevalue(f"{kind}_recipe")
    other = (
        replace(recipe, byte_model=replace(recipe.byte_model, layers=2))
        if kind == "byte"
        else replace(recipe, model=replace(recipe.model, hash_rows=90))
    )
    train_recipe(recipe, tmp_path / "run")
    train_recipe(other, tmp_path / "other")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    shutil.copytree(tmp_path / "other" / "checkpoint", tmp_path / "run" / "checkpoint")
    with pytest.raises(UserError, match="run/checkpoint: is of another shape"):
        train_recipe(recipe, tmp_path / "run", resume=True)


def test_a_step_without_a_finite_loss_is_left_out(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*bad: int) -> None:
        calls = iter(range(1000))
        forward = blt.ByteLM.predict
        monkeypatch.setattr(
            blt.ByteLM,
            "predict",
            lambda self, x: forward(self, x) * (float("nan") if next(calls) in bad else 1),
        )

    recipe = replace(byte_recipe, train=replace(byte_recipe.train, steps=20, evals=0))
    poisoned(1, 2)
    model = train_recipe(recipe, tmp_path / "two")
    assert events(tmp_path / "two", "train")[-1]["skipped"] == 2
    assert all(torch.isfinite(p).all() for p in model.parameters())
    poisoned(*range(3, 40))
    with pytest.raises(UserError, match="10 steps in a row, up to step 13"):
        train_recipe(recipe, tmp_path / "many")


def test_a_training_that_comes_to_nothing_says_so_and_that_nothing_was_saved(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an evaluation, with its samples, comes before the tenth step in a row."""
    forward = blt.ByteLM.predict
    monkeypatch.setattr(blt.ByteLM, "predict", lambda self, x: forward(self, x) * float("nan"))
    monkeypatch.setattr(
        blt.ByteLM, "generate", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("not finite"))
    )
    recipe = replace(byte_recipe, train=replace(byte_recipe.train, steps=40, evals=10))
    with pytest.raises(UserError, match=r"in 10 steps in a row, up to step 10.*nothing was saved"):
        train_recipe(recipe, tmp_path / "run")


def test_a_device_without_float64_is_refused_by_name(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "choose_device", lambda _: torch.device("mps"))
    with pytest.raises(UserError, match=r"train\.device: .*float64, which mps lacks"):
        train_recipe(byte_recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_leaves_no_run(byte_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(byte_recipe, train=replace(byte_recipe.train, device="cuda:7"))
    with pytest.raises(UserError, match=r"cuda:7.* is not there"):
        train_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_step_whose_gradient_explodes_is_left_out(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, forward = iter(range(1000)), blt.ByteLM.predict
    monkeypatch.setattr(
        blt.ByteLM,
        "predict",
        lambda self, x: forward(self, x) * (1e4 if next(calls) == 10 else 1),
    )
    train = replace(byte_recipe.train, steps=20, evals=0)
    train_recipe(replace(byte_recipe, train=train), tmp_path / "all")
    assert events(tmp_path / "all", "train")[-1]["skipped"] == 0
    calls = iter(range(1000))
    train = replace(train, most_norm=20.0)
    train_recipe(replace(byte_recipe, train=train), tmp_path / "usual")
    assert events(tmp_path / "usual", "train")[-1]["skipped"] == 1


def test_batches_in_one_step_add_up_to_a_larger_batch(byte_recipe: Recipe, tmp_path: Path) -> None:
    """Each byte counts the same, whichever of the batches of a step it is in."""
    data = replace(byte_recipe.data, context_bytes=31, batch_bytes=32)  # 31 bytes and BOS
    train = replace(byte_recipe.train, accumulate=8, steps=15)  # short segments come later
    train_recipe(replace(byte_recipe, data=data, train=train), tmp_path / "parts")
    whole = replace(data, batch_bytes=256)
    train_recipe(
        replace(byte_recipe, data=whole, train=replace(train, accumulate=1)), tmp_path / "whole"
    )
    parts, wholes = losses(tmp_path / "parts"), losses(tmp_path / "whole")
    assert parts == pytest.approx(wholes, rel=1e-4)


def test_recomputing_changes_no_loss(blt_recipe: Recipe, tmp_path: Path) -> None:
    train_recipe(blt_recipe, tmp_path / "kept")
    again = replace(blt_recipe, train=replace(blt_recipe.train, recompute=True))
    model = train_recipe(again, tmp_path / "again")
    assert losses(tmp_path / "again") == losses(tmp_path / "kept")
    assert_same_weights(model, blt.load(tmp_path / "kept" / "checkpoint"))


def test_each_evaluation_leaves_samples(blt_recipe: Recipe, tmp_path: Path) -> None:
    prompts = ("9 bottles", "été")
    train = replace(blt_recipe.train, sample_prompts=prompts)
    train_recipe(replace(blt_recipe, train=train), tmp_path / "run")
    samples = events(tmp_path / "run", "sample")
    scored = [e["step"] for e in events(tmp_path / "run", "train") if "heldout_bits_per_byte" in e]
    assert [(s["step"], s["prompt"]) for s in samples] == [(n, p) for n in scored for p in prompts]
    train_recipe(blt_recipe, tmp_path / "other")  # and change nothing
    assert losses(tmp_path / "run") == losses(tmp_path / "other")


def test_reports_say_what_share_of_the_peak_and_what_memory_steps_take(
    byte_recipe: Recipe, blt_recipe: Recipe, tmp_path: Path
) -> None:
    for recipe in (byte_recipe, blt_recipe):
        run = tmp_path / recipe.kind
        train_recipe(recipe, run)
        for event in events(run, "train"):
            assert 0 < event["mfu"] < 1
            assert event["memory"] > 10_000_000


@pytest.mark.parametrize("kind", ["byte", "blt", "token"])
def test_a_budget_in_flops_ends_it(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe: Recipe = request.getfixturevalue(f"{kind}_recipe")
    limit = 1e8
    train = replace(recipe.train, steps=None, flops=limit, sample_prompts=())
    reports: list[Report] = []
    train_recipe(replace(recipe, train=train), tmp_path / "run", on_progress=reports.append)
    assert reports[-1].progress == 1.0
    before = 0.0 if len(reports) == 1 else reports[-2].flops
    assert before < limit <= reports[-1].flops
    values = json.loads((tmp_path / "run" / "checkpoint" / "trainer.json").read_text())
    assert values["flops"] == reports[-1].flops


def test_a_training_of_a_single_step_learns(byte_recipe: Recipe, tmp_path: Path) -> None:
    """It has no warm-up, of which it would be the first step, with a rate of 0."""
    reports: list[Report] = []
    recipe = replace(byte_recipe, train=replace(byte_recipe.train, steps=1))
    train_recipe(recipe, tmp_path / "run", on_progress=reports.append)
    assert reports[-1].lr == recipe.train.lr
    longer = replace(recipe, train=replace(recipe.train, steps=2, log_every=1))
    train_recipe(longer, tmp_path / "longer", on_progress=reports.append)
    assert reports[1].lr == 0.0  # as ever


def test_a_budget_that_ends_with_a_first_step_without_a_rate_says_so(
    byte_recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, budget, warned in (
        ("one", {"flops": 1.0}, True),
        ("at once", {"flops": 1.0, "warmup": 0.0}, False),
        ("two", {"steps": 2}, False),
    ):
        caplog.clear()
        train = replace(byte_recipe.train, **{"steps": None, **budget})
        train_recipe(replace(byte_recipe, train=train), tmp_path / name)
        assert ("the only step had a learning rate of 0" in caplog.text) == warned


def test_a_budget_in_seconds_ends_it(byte_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(byte_recipe, train=replace(byte_recipe.train, steps=None, seconds=1.0))
    reports: list[Report] = []
    train_recipe(recipe, tmp_path / "run", on_progress=reports.append)
    assert reports[-1].progress == 1.0
    assert reports[-1].step >= 1


def test_finding_a_threshold_takes_nothing_from_the_warm_up(
    blt_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By a clock that stands still but for finding θ and for steps."""
    clock, observed, step = 0.0, Patcher.observed, Trainer.step
    monkeypatch.setattr(time, "monotonic", lambda: clock)

    def slow_observed(*args: Any, **how: Any) -> Any:
        nonlocal clock
        clock += 30
        return observed(*args, **how)

    def slow_step(self: Trainer, progress: float) -> Step:
        nonlocal clock
        clock += 1
        return step(self, progress)

    monkeypatch.setattr(Patcher, "observed", slow_observed)
    monkeypatch.setattr(Trainer, "step", slow_step)
    how = {"steps": None, "seconds": 100.0, "log_every": 1, "warmup": 0.2, "evals": 0}
    train = replace(blt_recipe.train, schedule="cosine", **how)
    recipe = replace(blt_recipe, train=train, target_patch_size=3.0)
    told: list[tuple[str, float]] = []
    train_recipe(
        recipe, tmp_path / "run", on_prepare=lambda what, share: told.append((what, share))
    )
    rates = [event["lr"] for event in events(tmp_path / "run", "train")]
    assert rates[0] < 0.05 * train.lr
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) > 0.9 * train.lr
    assert told[-1] == ("finding θ", 1.0)
    values = json.loads((tmp_path / "run" / "checkpoint" / "trainer.json").read_text())
    assert values["prepared_seconds"] == 30
    assert "had gone before" not in caplog.text
    short = replace(recipe, train=replace(recipe.train, seconds=40.0))
    train_recipe(short, tmp_path / "short")
    assert "30 of 40 seconds had gone before the first step" in caplog.text


def test_a_blt_without_an_entropy_model_trains(blt_recipe: Recipe, tmp_path: Path) -> None:
    config = replace(
        blt_recipe.model, patching=blt.PatchingConfig(rule="space"), entropy_model=None
    )
    recipe = replace(blt_recipe, model=config, entropy_model=None)
    model = train_recipe(recipe, tmp_path / "run")
    assert_same_weights(model, blt.load(tmp_path / "run" / "checkpoint"))


def test_ngrams_that_training_never_showed_add_nothing(blt_recipe: Recipe, tmp_path: Path) -> None:
    model = train_recipe(blt_recipe, tmp_path / "run")
    assert isinstance(model, blt.BLT)
    used = model.encoder.embedding.ngram.count_nonzero(dim=1) > 0
    assert 0 < used.sum() < len(used)  # those of the text, and they alone


def test_a_lookup_table_is_learned_from_an_entropy_model_and_cuts_as_asked(
    blt_recipe: Recipe, tmp_path: Path
) -> None:
    assert blt_recipe.model is not None
    patching = blt.PatchingConfig(rule="lookup", lookup_order=2)
    model = replace(blt_recipe.model, patching=patching)
    recipe = replace(blt_recipe, model=model, target_patch_size=3.0)
    train_recipe(recipe, tmp_path / "run")
    lm = blt.load(tmp_path / "run" / "checkpoint")
    assert isinstance(lm, blt.BLT)
    assert lm.entropy_model is None
    (event,) = events(tmp_path / "run", "patching")
    assert event["heldout_patch_size"] == pytest.approx(3.0, rel=0.35)
    (written,) = lm.generate(["a"], max_bytes=20)
    whole = lm.patch(b"a" + written.data)
    assert written.starts == whole.starts[2:].tolist()  # after BOS and the prompt


@pytest.mark.parametrize("fair", [False, True])
def test_a_lookup_table_needs_no_entropy_model(
    fair: bool, lookup_recipe: Recipe, tmp_path: Path
) -> None:
    assert lookup_recipe.model is not None
    patching = replace(lookup_recipe.model.patching, fair_scripts=fair)
    recipe = replace(lookup_recipe, model=replace(lookup_recipe.model, patching=patching))
    told: list[str] = []
    train_recipe(recipe, tmp_path / "run", on_prepare=lambda what, _: told.append(what))
    assert set(told) == {"learning the table"}
    lm = blt.load(tmp_path / "run" / "checkpoint")
    assert isinstance(lm, blt.BLT)
    assert lm.entropy_model is None
    (event,) = events(tmp_path / "run", "patching")
    assert event["heldout_patch_size"] == pytest.approx(3.0, rel=0.35)


def test_a_missing_entropy_model_is_named_before_anything_is_written(
    blt_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(blt_recipe, entropy_model=str(tmp_path / "none"))
    with pytest.raises(UserError, match="none"):
        train_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_compiling_changes_no_loss(blt_recipe: Recipe, tmp_path: Path) -> None:
    train_recipe(blt_recipe, tmp_path / "plain")
    recipe = replace(blt_recipe, train=replace(blt_recipe.train, compile=True))
    train_recipe(recipe, tmp_path / "compiled")
    plain, compiled = losses(tmp_path / "plain"), losses(tmp_path / "compiled")
    assert compiled == pytest.approx(plain, rel=1e-4)
    train_recipe(recipe, tmp_path / "compiled", resume=True)
