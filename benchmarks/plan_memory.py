"""Predicted against measured peak memory of training steps on this machine.

    python -m benchmarks plan_memory [FILE.json]

Each shape trains a few steps on random bytes in a process of its own. Measured is the peak resident
memory less what the process had before the model was built.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # python benchmarks/plan_memory.py is python -m benchmarks plan_memory
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmarks.__main__ import main as command

    raise SystemExit(command(["plan_memory", *sys.argv[1:]]))

import numpy as np
import torch

import blt
from benchmarks.machine import apart
from benchmarks.report import write
from benchmarks.shape import CONFIG
from blt.data import loader_of
from blt.machine.hardware import peak_memory
from blt.model.config import Config
from blt.plan.memory import step_memory
from blt.train import TrainConfig
from blt.train.trainer import Trainer

STEPS = 4
PATCH_SIZE = 4
SPACE = blt.PatchingConfig(rule="static", stride=PATCH_SIZE)  # known patches, no entropy model
# Config, batch and context bytes, precision. The first three set the constants of
# StepMemory.resident, the others check them.
SHAPES: dict[str, tuple[Config, int, int, str]] = {
    "5M active": (
        Config(
            local_dim=128, local_heads=4, encoder_ff_dim=352, decoder_layers=2, decoder_ff_dim=352,
            global_dim=256, global_heads=4, global_layers=4, global_ff_dim=704, hash_rows=20000,
        ), 16384, 2048, "float32",
    ),
    "31M active": (CONFIG, 8192, 8192, "bfloat16"),
    "110M active": (
        replace(CONFIG, global_dim=768, global_heads=12, global_layers=12, global_ff_dim=2048,
                cross_attention_k=3), 16384, 4096, "bfloat16",
    ),
    "check: 31M active": (CONFIG, 8192, 2048, "float32"),
    "check: 14M active": (
        replace(CONFIG, global_dim=512, global_heads=8, global_layers=4, global_ff_dim=1024,
                decoder_layers=2), 16384, 8192, "bfloat16",
    ),
    "check: 70M active": (
        replace(CONFIG, global_dim=768, global_heads=12, global_layers=8, global_ff_dim=2048,
                cross_attention_k=3), 8192, 8192, "float32",
    ),
}  # fmt: skip


def config_of(name: str) -> Config:
    return replace(SHAPES[name][0], patching=SPACE, entropy_model=None)


def measure(name: str) -> float:
    """Peak bytes of a few steps; in a process of its own."""
    _, batch_bytes, context_bytes, precision = SHAPES[name]
    before = peak_memory()
    model = blt.BLT(config_of(name))
    text = np.random.default_rng(0).integers(0, 256, 10**6, dtype=np.uint8).tobytes()
    loader = loader_of([text], batch_bytes=batch_bytes, context_bytes=context_bytes)
    trainer = Trainer(model, loader, TrainConfig(steps=STEPS, precision=precision))  # type: ignore[arg-type]
    for _ in range(STEPS):
        trainer.step(0.5)
    trainer.loader.close()
    return peak_memory() - before


def predict(name: str) -> float:
    _, batch_bytes, context_bytes, precision = SHAPES[name]
    memory = step_memory(
        config_of(name),
        batch_bytes=batch_bytes,
        context_bytes=context_bytes,
        patch_size=PATCH_SIZE,
        dtype=getattr(torch, precision),
    )
    return memory.resident


def main(file: Path | None) -> None:
    results: dict[str, Any] = {}
    for name, (_, batch_bytes, context_bytes, precision) in SHAPES.items():
        measured = apart(measure, name=name)
        predicted = predict(name)
        results[name] = {"predicted": predicted, "measured": measured, "precision": precision,
                         "batch_bytes": batch_bytes, "context_bytes": context_bytes}  # fmt: skip
        print(
            f"{name:18} {precision:9} {batch_bytes:6} ids, context {context_bytes:5}: predicted "
            f"{predicted / 1e6:6.0f} MB, measured {measured / 1e6:6.0f} MB, "
            f"{predicted / measured - 1:+.1%}"
        )
    write(file, results)
