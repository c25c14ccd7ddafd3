"""What the training loop costs: bare steps, and the same steps with everything around them.

    python benchmarks/loop.py [benchmarks/loop.json]

The benchmark's shape, patches at known places. The whole loop makes batches, logs every step, and
writes a checkpoint every 60 seconds, as by default, and one at its end; the bare one takes steps on
one and the same batch, before the loop and after it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

import blt
from blt.bench.shape import CONFIG
from blt.data import Batch, Loader
from blt.data.segments import MemorySegments
from blt.train import DataConfig, Recipe, Report, TrainConfig, fit, open_run
from blt.train.trainer import Trainer

SHAPES = ((8192, 2048), (8192, 8192))  # bytes of a batch, of a document
SECONDS = 200.0  # of the loop: three checkpoints while it goes on, one at its end
BARE_SECONDS = 30.0
MODEL = replace(CONFIG, entropy_model=None, patching=blt.PatchingConfig(rule="static", stride=4))


def documents() -> list[bytes]:
    """Random bytes, enough that none comes twice."""
    generator = np.random.default_rng(0)
    return [generator.bytes(8191) for _ in range(512)]


def recipe(batch_bytes: int, context_bytes: int) -> Recipe:
    data = DataConfig(("memory",), context_bytes=context_bytes, batch_bytes=batch_bytes)
    train = TrainConfig(seconds=SECONDS, precision="bfloat16", evals=0)
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


def bare(made: Recipe) -> float:
    """Bytes per second of steps alone."""
    trainer = Trainer(*trained(made, Same), made.train)
    trainer.step(0.5)
    start, size = time.perf_counter(), 0
    while time.perf_counter() - start < BARE_SECONDS:
        size += trainer.step(0.5).num_bytes
    trainer.loader.close()
    return size / (time.perf_counter() - start)


def whole(made: Recipe) -> dict[str, float]:
    """Bytes per second of ``blt train``'s loop, with the last checkpoint, which is waited for, and
    without it; share of the steps' time that went by waiting for batches."""
    with tempfile.TemporaryDirectory() as scratch:
        run = open_run(Path(scratch) / "run", made)
        model, loader = trained(made)
        reports: list[Report] = []
        start = time.perf_counter()
        last = fit(model, loader, made.train, run=run, on_progress=reports.append)
        seconds = time.perf_counter() - start
        return {
            "whole": last.bytes_seen / seconds,
            "until_end": last.bytes_seen / (seconds - run.save_seconds),
            "waited": sum(report.waited for report in reports) / len(reports),
            "last_checkpoint_seconds": run.save_seconds,
        }


def main(out: str | None = None, *names: str) -> None:
    results = {}
    for batch_bytes, context_bytes in SHAPES:
        name = f"{batch_bytes // context_bytes} x {context_bytes}"
        if names and name not in names:
            continue
        made = recipe(batch_bytes, context_bytes)
        before, loop, after = bare(made), whole(made), bare(made)
        alone = (before + after) / 2
        losses = {f"loss_{part}": 1 - loop[part] / alone for part in ("whole", "until_end")}
        results[name] = {"bare_before": before, "bare_after": after, **loop, **losses}
        print(name, results[name], flush=True)
    if out is not None:
        Path(out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
