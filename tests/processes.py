"""Trainings in processes of their own, one or several together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from blt.train import Recipe, write_recipe


def write(recipe: Recipe, path: Path, **changes: Any) -> Path:
    write_recipe(path, replace(recipe, train=replace(recipe.train, **changes)))
    return path


def command(recipe: Path, run: Path, *more: str, processes: int = 1) -> list[str]:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += [
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
            "-m",
            "--",
        ]
    return [*launcher, "blt", "train", str(recipe), "--run", str(run), *more]


def train(recipe: Path, run: Path, *more: str, processes: int = 1) -> None:
    # One thread each: how sums are divided among threads decides their last bits.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = command(recipe, run, *more, processes=processes)
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def reports(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "train"]
