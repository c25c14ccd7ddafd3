"""A run folder is never overwritten by mistake, and its checkpoint is whole at every moment."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import blt
from blt.checkpoint import folders
from blt.errors import UserError
from blt.train import Recipe, RunFolder, open_run, train_recipe, write_recipe
from blt.train.run import TrainerState
from shapes import TINY


def save(run: RunFolder, step: int, keep: int = 1) -> None:
    """A checkpoint in which everything says ``step``."""
    model = blt.ByteLM(TINY)
    for parameter in model.parameters():
        parameter.data.fill_(step)
    run.save(model, TrainerState({"x": torch.full((20_000,), step)}, {"step": step}), keep)


def step_of(run: RunFolder) -> int:
    """The step that all parts of the checkpoint agree on."""
    tensors = run.trainer_tensors({"x": torch.zeros(20_000, dtype=torch.int64)})
    steps = {run.trainer_values()["step"], *tensors["x"].unique().tolist()}
    steps |= {int(p.unique()) for p in blt.load(run.checkpoint).parameters()}
    (step,) = steps
    return step


def test_what_is_saved_in_the_background_is_what_was_there_when_it_was_asked_for(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    run = open_run(tmp_path / "run", byte_recipe)
    model, tensor = blt.ByteLM(TINY), torch.full((20_000,), 1)
    for step in (1, 2):
        for parameter in model.parameters():
            parameter.data.fill_(step)
        tensor.fill_(step)
        run.save(model, TrainerState({"x": tensor}, {"step": step}), wait=False)
        for parameter in model.parameters():
            parameter.data.fill_(99)
        tensor.fill_(99)
    run.finish_saving()
    assert step_of(run) == 2


@pytest.mark.parametrize("limit", [10_000, 100_000])  # the weights do not fit, or the state
def test_a_disk_without_room_is_named_and_leaves_the_checkpoint_before(
    byte_recipe: Recipe, tmp_path: Path, limit: int
) -> None:
    run = open_run(tmp_path / "run", byte_recipe)
    save(run, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # longer files fail
    try:
        state = TrainerState({"x": torch.ones(40_000)}, {"step": 2})
        run.save(blt.ByteLM(TINY), state, wait=False)
        with pytest.raises(UserError, match=r"could not be written \(.*too large.*--resume"):
            run.finish_saving()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert step_of(run) == 1
    assert {path.name for path in run.path.iterdir()} == {".lock", "checkpoint", "recipe.toml"}
    save(run, 3)
    assert step_of(run) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    run = open_run(tmp_path / "run", byte_recipe)
    save(run, 0)
    for _ in range(15):
        before = step_of(run)
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            inside = RunFolder(run.path)  # threads do not survive a fork
            for step in range(before + 1, 1 << 20):
                save(inside, step)
                os.write(told, b".")
        os.read(heard, 1)  # it has saved once
        time.sleep(random.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(heard)
        os.close(told)
        assert step_of(run) > before
    open_run(tmp_path / "run", byte_recipe, resume=True)
    assert {path.name for path in run.path.iterdir()} == {".lock", "checkpoint", "recipe.toml"}


def test_where_folders_cannot_be_exchanged_a_kill_is_made_good_on_resuming(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tmp_path / "run", byte_recipe)
    save(run, 1)
    left = run.path / ".checkpoint.left"
    left.mkdir()
    os.replace(run.checkpoint, left / "old")  # killed between two renames
    assert step_of(open_run(tmp_path / "run", byte_recipe, resume=True)) == 1
    monkeypatch.setattr(folders, "exchange", lambda a, b: False)
    save(run, 2)
    assert step_of(run) == 2


def test_a_run_is_not_overwritten(byte_recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "run"
    open_run(path, byte_recipe)
    before = (path / "recipe.toml").read_bytes()
    with pytest.raises(UserError, match="--resume"):
        open_run(path, replace(byte_recipe, seed=1))
    with pytest.raises(UserError, match="another seed"):
        open_run(path, replace(byte_recipe, seed=1), resume=True)
    assert (path / "recipe.toml").read_bytes() == before
    longer = replace(byte_recipe, train=replace(byte_recipe.train, steps=99))
    open_run(path, longer, resume=True)


def test_a_training_that_cannot_go_on_is_not_begun_anew(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    """Nor is its checkpoint taken for a place to write a model to."""
    train_recipe(byte_recipe, tmp_path / "run")
    checkpoint, metrics = tmp_path / "run" / "checkpoint", tmp_path / "run" / "metrics.jsonl"
    with pytest.raises(UserError, match="checkpoint of a training"):
        blt.load(checkpoint).save(checkpoint)
    (checkpoint / "trainer.json").unlink()
    before = metrics.read_bytes()
    with pytest.raises(UserError, match=r"without trainer\.json"):
        train_recipe(byte_recipe, tmp_path / "run", resume=True)
    assert metrics.read_bytes() == before


def test_a_run_in_work_is_refused_to_other_programs_until_it_ends_or_is_killed(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    code = f"""
import time
from blt.train import open_run, read_recipe
run = open_run({str(path)!r}, read_recipe({str(tmp_path / "recipe.toml")!r}))
print("open", flush=True)
time.sleep(600)
"""
    write_recipe(tmp_path / "recipe.toml", byte_recipe)
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"open\n"
    (path / ".checkpoint.writing").mkdir()  # as if it were saving
    with pytest.raises(UserError, match="another program"):
        open_run(path, byte_recipe, resume=True)
    assert (path / ".checkpoint.writing").is_dir()
    other.kill()
    other.communicate()
    open_run(path, byte_recipe, resume=True)
    assert not (path / ".checkpoint.writing").exists()


def test_a_kill_before_anything_is_written_leaves_a_folder_that_is_taken(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / ".recipe.toml.new").write_text("[da")
    assert open_run(tmp_path, byte_recipe)


def test_other_folders_and_files_are_left_alone(byte_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not a run folder"):
        open_run(tmp_path / "mine", byte_recipe, resume=True)
    with pytest.raises(UserError, match="is a file"):
        open_run(tmp_path / "mine" / "thesis.txt", byte_recipe)
    with pytest.raises(UserError, match="no run to resume"):
        open_run(tmp_path / "new", byte_recipe, resume=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("damage", [b"damaged", b"[]", None])
@pytest.mark.parametrize("name", ["trainer.json", "trainer"])
def test_a_damaged_checkpoint_is_named(
    byte_recipe: Recipe, tmp_path: Path, name: str, damage: bytes | None
) -> None:
    run = open_run(tmp_path / "run", byte_recipe)
    save(run, 1)
    path = run.checkpoint / name
    path = path if path.is_file() else next(path.glob("*.safetensors"))
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(UserError, match=name):
        step_of(run)


def test_a_checkpoint_of_another_shape_is_named(byte_recipe: Recipe, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", byte_recipe)
    save(run, 1)
    with pytest.raises(UserError, match="trainer"):
        run.trainer_tensors({"x": torch.zeros(7, dtype=torch.int64)})


def test_as_many_checkpoints_are_kept_as_asked(byte_recipe: Recipe, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", byte_recipe)
    for step in range(5):
        save(run, step, keep=3)
    assert step_of(run) == 4
    older = sorted((run.path / "checkpoints").iterdir())
    assert [path.name for path in older] == ["step-000000002", "step-000000003"]
    assert int(next(blt.load(older[0]).parameters()).unique()) == 2


def test_a_step_that_is_saved_again_takes_no_place_of_an_older_one(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    """As at the end of a run that had ended before, and is resumed."""
    run = open_run(tmp_path / "run", byte_recipe)
    for step in (1, 2, 3, 3, 3):
        save(run, step, keep=3)
    older = sorted((run.path / "checkpoints").iterdir())
    assert [path.name for path in older] == ["step-000000001", "step-000000002"]
    assert step_of(run) == 3


def test_metrics_after_the_checkpoint_are_forgotten(byte_recipe: Recipe, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", byte_recipe)
    for step in range(4):
        run.log({"event": "train", "step": step})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "tra')  # killed while writing
    run.forget_after(1)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert lines == ['{"event": "train", "step": 0}', '{"event": "train", "step": 1}']
