"""``blt train``: what it leaves and says, its one-line errors, and what a signal leaves whole."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import blt
from blt import cli
from blt.train.recipe import read_recipe
from commands import fails
from texts import write_documents


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("text"))


RECIPE = """
kind = "byte"
[data]
sources = [{text}]
context_bytes = 64
batch_bytes = 256
[byte_model]
dim = 16
heads = 2
layers = 1
ff_dim = 32
[train]
steps = {steps}
lr = 1e-3
checkpoint_every_seconds = 0.05
evals = 1
eval_bytes = 500
"""


def write_recipe(folder: Path, text: Path, steps: int = 3) -> Path:
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(text=json.dumps(str(text)), steps=steps))
    return path


def test_train_then_generate(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = write_recipe(tmp_path, text), tmp_path / "run"
    assert cli.main(["train", str(recipe), "train.lr=2e-3", "--run", str(run)]) == 0
    assert read_recipe(run / "recipe.toml").train.lr == 2e-3
    assert "bits/byte" in capsys.readouterr().out
    assert cli.main(["generate", "a", "--model", str(run / "checkpoint"), "--max-bytes", "3"]) == 0


def test_few_steps_are_mentioned_only_if_nobody_asked_for_so_few(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, text)
    assert cli.main(["train", str(recipe), "train.steps=4", "--run", str(tmp_path / "asked")]) == 0
    assert "budget" not in capsys.readouterr().out
    command = ["train", str(recipe), "train.flops=1", "--run", str(tmp_path / "budget")]
    assert cli.main(command) == 0
    assert "only 1 step fitted into the budget" in capsys.readouterr().out


def test_train_mistakes(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = write_recipe(tmp_path, text), tmp_path / "run"
    for changes, message in (
        (["train.learning_rate=1"], "'train.learning_rate'"),
        (["train.lrr=1"], "did you mean 'lr'"),
        (["train.steps=many"], "train.steps"),
        (["byte_model.dim=15"], "multiple"),
        (["data.sources=['/nowhere']"], "/nowhere"),
        (["train.steps"], "section.key=value"),
        (["--resume"], "no run to resume"),
    ):
        assert cli.main(["train", str(recipe), *changes, "--run", str(run)]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
        assert not (run / "checkpoint").exists()
    assert cli.main(["train", str(tmp_path / "missing.toml")]) == 2
    assert "missing.toml" in capsys.readouterr().err
    assert cli.main(["train", str(recipe), "--resume"]) == 2
    assert "--run" in capsys.readouterr().err


def test_a_run_and_another_run_to_write_into_are_refused(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a"
    run.mkdir()
    write_recipe(tmp_path, text).rename(run / "recipe.toml")
    for more in (["--resume"], []):
        said = fails(capsys, "train", run, "--run", tmp_path / "b", *more)
        assert f"{run} is the folder of a run, and --run {tmp_path / 'b'} another one" in said
    assert not (tmp_path / "b").exists()
    same = f"{tmp_path}/b/../a"
    assert "no run to resume" in fails(capsys, "train", run, "--run", same, "--resume")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_training_leaves_a_whole_checkpoint(
    tmp_path: Path, text: Path, number: signal.Signals
) -> None:
    recipe, run = write_recipe(tmp_path, text, steps=1_000_000), tmp_path / "run"
    command = [sys.executable, "-m", "blt", "train", str(recipe), "--run", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (run / "checkpoint").is_dir():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(random.random() / 2)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert blt.load(run / "checkpoint").logits(blt.encode("a")).shape == (2, 260)
    if number == signal.SIGINT:
        assert process.returncode == 130
        (line,) = [line for line in err.splitlines() if line.startswith(b"blt: ")]
        assert b"--resume" in line
        assert b"Traceback" not in err
