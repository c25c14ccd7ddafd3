"""What the training loop costs: bare steps, and the same steps with everything around them.

    python -m benchmarks loop [FILE.json ["4 x 2048" ...]]

The benchmark's shape, patches at known places. The whole loop makes batches, logs every step, and
writes a checkpoint for every 60 seconds of it, as by default, and one at its end. The speed of the
machine drifts from minute to minute, so the loop is halted every few seconds while no checkpoint
is being written, and bare steps on one and the same batch are taken for as long.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

if __name__ == "__main__":  # python benchmarks/loop.py is python -m benchmarks loop
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmarks.__main__ import main as command

    raise SystemExit(command(["loop", *sys.argv[1:]]))

import numpy as np
import torch

import blt
from benchmarks.report import earlier, write
from benchmarks.shape import CONFIG
from blt.data import Loader
from blt.data.segments import MemorySegments
from blt.errors import require
from blt.model.language import Batch
from blt.train import DataConfig, Recipe, Report, TrainConfig, fit, open_run
from blt.train.run import RunFolder
from blt.train.trainer import Trainer

SHAPES = ((8192, 2048), (8192, 8192))  # bytes of a batch, of a document
SECONDS = 360.0  # half of them of the loop
TURN = 6.0  # seconds
CHECKPOINT = 120.0  # seconds between checkpoints, bare steps included
MODEL = replace(CONFIG, entropy_model=None, patching=blt.PatchingConfig(rule="static", stride=4))


def documents() -> list[bytes]:
    """Random bytes, enough that none comes twice."""
    generator = np.random.default_rng(0)
    return [generator.bytes(8191) for _ in range(512)]


def recipe(batch_bytes: int, context_bytes: int) -> Recipe:
    data = DataConfig(("memory",), context_bytes=context_bytes, batch_bytes=batch_bytes)
    train = TrainConfig(
        seconds=SECONDS,
        precision="bfloat16",
        evals=0,
        log_every=1,
        checkpoint_every_seconds=CHECKPOINT,
    )
    return Recipe("blt", data, train, model=MODEL, target_patch_size=0.0)


class Same(Loader):
    """The first batch, again and again."""

    def __next__(self) -> Batch:
        return self._first

    @cached_property
    def _first(self) -> Batch:
        return super().__next__()


def trained(made: Recipe, kind: type[Loader] = Loader) -> tuple[blt.BLT, Loader]:
    torch.manual_seed(0)
    batch, context = made.data.batch_bytes, made.data.context_bytes
    sources = [MemorySegments(documents(), context)]
    return blt.BLT(MODEL), kind(sources, batch_bytes=batch, context_bytes=context)


class Bare:
    """Steps alone, taken while the loop is halted; called with its reports."""

    def __init__(self, made: Recipe, run: RunFolder) -> None:
        self.run = run
        self.trainer = Trainer(*trained(made, Same), made.train)
        self.trainer.step(0.5)
        self.bytes_seen, self.seconds = 0, 0.0
        self.waited: list[float] = []
        self._halted = time.perf_counter()

    def __call__(self, report: Report) -> None:
        self.waited.append(report.waited)
        start = time.perf_counter()
        if start - self._halted < TURN or self.run.saving:
            return
        while time.perf_counter() - start < TURN:
            self.bytes_seen += self.trainer.step(0.5).num_bytes
        self._halted = time.perf_counter()
        self.seconds += self._halted - start


def measured(made: Recipe) -> dict[str, float]:
    """Bytes per second of steps alone, and of ``blt train``'s loop with the last checkpoint, which
    is waited for, and without it; share of the steps' time that went by waiting for batches."""
    with tempfile.TemporaryDirectory() as scratch:
        run = open_run(Path(scratch) / "run", made)
        model, loader = trained(made)
        bare = Bare(made, run)
        start = time.perf_counter()
        last = fit(model, loader, made.train, run=run, on_progress=bare)
        seconds = time.perf_counter() - start - bare.seconds
        bare.trainer.loader.close()
    results = {
        "bare": bare.bytes_seen / bare.seconds,
        "whole": last.bytes_seen / seconds,
        "until_end": last.bytes_seen / (seconds - run.save_seconds),
        "waited": sum(bare.waited) / len(bare.waited),
        "last_checkpoint_seconds": run.save_seconds,
    }
    losses = {
        f"loss_{part}": 1 - results[part] / results["bare"] for part in ("whole", "until_end")
    }
    return results | losses


def main(file: Path | None, names: Sequence[str]) -> None:
    shapes = {f"{batch // context} x {context}": (batch, context) for batch, context in SHAPES}
    for name in names:
        require(name in shapes, f"unknown shape {name!r}; known: {', '.join(shapes)}")
    results = earlier(file)
    for name in names or shapes:
        results[name] = measured(recipe(*shapes[name]))
        print(name, results[name], flush=True)
        write(file, results)
