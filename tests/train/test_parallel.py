"""Several processes, or one that is killed again and again, train what one process would."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt import cli
from blt.data.prepare import Options, prepare
from blt.machine import precision
from blt.train import Recipe
from metrics import losses, reports
from processes import start, torchrun, train, write

STEPS = 50
WRITING = ".checkpoint.writing"  # beside a run's checkpoint


def weights(run: Path) -> dict[str, torch.Tensor]:
    return blt.load(run / "checkpoint").state_dict()


def test_two_processes_give_the_losses_of_one_and_their_checkpoints_fit_both(
    blt_recipe: Recipe, tmp_path: Path
) -> None:
    one = write(blt_recipe, tmp_path / "one.toml", steps=STEPS, accumulate=2, lr=2e-3)
    two = write(blt_recipe, tmp_path / "two.toml", steps=STEPS, accumulate=1, lr=2e-3)
    train(one, tmp_path / "one")
    train(two, tmp_path / "two", processes=2)
    alone, together = reports(tmp_path / "one"), reports(tmp_path / "two")
    assert len(alone) == len(together) == STEPS
    for a, b in zip(alone, together, strict=True):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-5)
        assert b["bytes_seen"] == a["bytes_seen"]
    assert alone[-1]["bits_per_byte"] < 0.7 * alone[0]["bits_per_byte"]
    # From two processes to one, and from one to two: the same text goes on in both.
    for run, processes in (("one", 2), ("two", 1)):
        longer = write(
            blt_recipe, tmp_path / f"{run}.toml", steps=STEPS + 10, accumulate=2, lr=2e-3
        )
        if processes == 2:
            longer = write(blt_recipe, longer, steps=STEPS + 10, accumulate=1, lr=2e-3)
        train(longer, tmp_path / run, "--resume", processes=processes)
    alone, together = reports(tmp_path / "one")[-10:], reports(tmp_path / "two")[-10:]
    for a, b in zip(alone, together, strict=True):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-4)
        assert b["bytes_seen"] == a["bytes_seen"]


def main(arguments: list[str], *, faster: tuple[bool, ...]) -> int:
    """A command of ours in a process that has measured whether bfloat16 is faster."""
    found = faster[int(os.environ.get("RANK", 0))]
    precision.settle_bfloat16(torch.device("cpu"), found)
    return cli.main(arguments)


def alone_and_together(
    recipe: Recipe, folder: Path, faster: tuple[bool, bool], **changes: Any
) -> zip[tuple[dict[str, Any], dict[str, Any]]]:
    """Reports of one process, and of two that have measured so, step by step."""
    one = write(recipe, folder / "1.toml", **changes, accumulate=2)
    two = write(recipe, folder / "2.toml", **changes)
    train(one, folder / "one", verb=partial(main, faster=(all(faster),)))
    train(two, folder / "two", processes=2, verb=partial(main, faster=faster))
    return zip(reports(folder / "one"), reports(folder / "two"), strict=True)


def test_muon_in_two_processes_is_muon_in_one(blt_recipe: Recipe, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"optimizer": "muon", "steps": 12, "lr": 2e-3}
    for a, b in alone_and_together(blt_recipe, tmp_path, (True, True), **changes):
        # Muon's own products are in bfloat16.
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=2e-3)


@pytest.mark.parametrize(
    "faster", [(True, False), pytest.param((True, True), marks=pytest.mark.slow)]
)
def test_processes_that_measure_otherwise_train_in_one_precision(
    blt_recipe: Recipe, tmp_path: Path, faster: tuple[bool, bool]
) -> None:
    changes: dict[str, Any] = {"optimizer": "muon", "steps": 2, "precision": "auto"}
    for a, b in alone_and_together(blt_recipe, tmp_path, faster, **changes):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-4)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_lost_worker_ends_the_training_and_nothing_is_lost(
    blt_recipe: Recipe, tmp_path: Path
) -> None:
    steps = {"steps": 60, "checkpoint_every_seconds": 0.1}
    recipe, run = write(blt_recipe, tmp_path / "recipe.toml", **steps), tmp_path / "run"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "3"}
    process = subprocess.Popen(
        torchrun(recipe, run, processes=2),
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not (run / "checkpoint" / "trainer.json").is_file() or len(reports(run)) < 20:
        assert process.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=90)  # torchrun notices, and ends the other one
    assert process.returncode != 0
    assert b"SIGKILL" in said or b"Signal 9" in said
    train(recipe, run, "--resume", processes=2)
    train(recipe, tmp_path / "whole", processes=2)
    resumed, whole = reports(run), reports(tmp_path / "whole")
    assert [r["step"] for r in resumed] == list(range(1, 61))
    assert [r["bytes_seen"] for r in resumed] == [r["bytes_seen"] for r in whole]
    assert resumed[-1]["bits_per_byte"] == pytest.approx(whole[-1]["bits_per_byte"], rel=1e-5)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_training_that_is_killed_at_random_moments_ends_bit_for_bit_the_same(
    blt_recipe: Recipe, entropy_folder: Path, tmp_path: Path
) -> None:
    """A BLT with hash tables, Muon, shards mixed with plain text, killed in steps and writes."""
    text = blt_recipe.data.sources[0]
    prepare(tmp_path / "shards", Options((text,), 0.2, str(entropy_folder), segment_bytes=100))
    sources = (str(tmp_path / "shards"), text)
    mixed = replace(blt_recipe, data=replace(blt_recipe.data, sources=sources, weights=(2.0, 1.0)))
    every = {"steps": 140, "checkpoint_every_seconds": 0.05, "optimizer": "muon"}
    recipe = write(mixed, tmp_path / "recipe.toml", **every)
    decided = partial(main, faster=(False,))  # measured anew, it may come out otherwise
    train(recipe, tmp_path / "whole", verb=decided)
    run = tmp_path / "killed"
    half_written = 0
    for attempt in range(3):
        resume = ("--resume",) if (run / "recipe.toml").is_file() else ()
        (process,) = start(recipe, run, *resume, verb=decided)
        go_on_until(process, run, steps=random.randrange(5, 30), writing=attempt > 0)
        process.kill()
        process.join()
        half_written += (run / WRITING).is_dir()
    assert half_written > 0
    train(recipe, run, "--resume", verb=decided)
    assert losses(run) == losses(tmp_path / "whole")
    assert [r["bytes_seen"] for r in reports(run)] == [
        r["bytes_seen"] for r in reports(tmp_path / "whole")
    ]
    found, expected = weights(run), weights(tmp_path / "whole")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def go_on_until(process: Any, run: Path, steps: int, writing: bool) -> None:
    """Let a training take so many more steps, and be at a checkpoint if that is asked for."""
    before = len(reports(run))
    while len(reports(run)) < before + steps:
        assert process.is_alive(), "the training ended before it was killed"
        time.sleep(0.005)
    while writing and not (run / WRITING).is_dir():
        assert process.is_alive(), "the training ended before it was killed"
        time.sleep(0.0005)
    time.sleep(random.uniform(0.0, 0.005))
