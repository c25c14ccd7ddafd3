"""What the training loop costs: bare steps, and the same steps with everything around them.

    python benchmarks/loop.py [benchmarks/loop.json]

The benchmark's shape, patches at known places. The whole loop makes batches, logs every step, and
writes a checkpoint every 60 seconds, as by default; the bare one does none of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import blt
from blt.bench.shape import CONFIG
from blt.data import loader_of
from blt.train import DataConfig, Recipe, TrainConfig, fit, open_run
from blt.train.trainer import Trainer

SHAPES = ((8192, 2048), (8192, 8192))  # bytes of a batch, of a document
SECONDS = 150.0  # of the loop
BARE_SECONDS = 40.0
MODEL = replace(CONFIG, entropy_model=None, patching=blt.PatchingConfig(rule="static", stride=4))


def documents() -> list[bytes]:
    """Random bytes, enough that none comes twice."""
    generator = np.random.default_rng(0)
    return [generator.bytes(8191) for _ in range(512)]


def recipe(batch_bytes: int, context_bytes: int) -> Recipe:
    data = DataConfig(("memory",), context_bytes=context_bytes, batch_bytes=batch_bytes)
    train = TrainConfig(seconds=SECONDS, precision="bfloat16", evals=0)
    return Recipe("blt", data, train, model=MODEL, target_patch_size=0.0)


def trained(made: Recipe) -> tuple[blt.BLT, Any]:
    torch.manual_seed(0)
    loader = loader_of(
        documents(), batch_bytes=made.data.batch_bytes, context_bytes=made.data.context_bytes
    )
    return blt.BLT(MODEL), loader


def bare(made: Recipe) -> float:
    """Bytes per second of steps alone."""
    trainer = Trainer(*trained(made), made.train)
    trainer.step(0.5)
    start, size = time.perf_counter(), 0
    while time.perf_counter() - start < BARE_SECONDS:
        size += trainer.step(0.5).num_bytes
    trainer.loader.close()
    return size / (time.perf_counter() - start)


def whole(made: Recipe) -> float:
    """Bytes per second of ``blt train``'s loop, from its first step to its last checkpoint."""
    with tempfile.TemporaryDirectory() as scratch:
        run = open_run(Path(scratch) / "run", made)
        model, loader = trained(made)
        start = time.perf_counter()
        report = fit(model, loader, made.train, run=run)
        return report.bytes_seen / (time.perf_counter() - start)


def main(out: str | None = None) -> None:
    results = {}
    for batch_bytes, context_bytes in SHAPES:
        made = recipe(batch_bytes, context_bytes)
        first, loop, again = bare(made), whole(made), bare(made)
        alone = max(first, again)
        name = f"{batch_bytes // context_bytes} x {context_bytes}"
        results[name] = {"bare": alone, "loop": loop, "loss": 1 - loop / alone}
        print(f"{name}: bare {alone:,.0f} bytes/s, loop {loop:,.0f}, loss {1 - loop / alone:.1%}")
    if out is not None:
        Path(out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
