"""One measurement of the table: training, scoring or entropies, of one side.

Separate processes keep one side's memory and settings from touching the other's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks import shape
from benchmarks.machine import fastest
from benchmarks.steps import our_step, transformers_step
from blt.machine.hardware import measured_flops, peak_memory
from blt.machine.runtime import keep_freed_memory

SECONDS = 6.0  # of repetition per measurement, after one warm-up
PRECISIONS = ("float32", "bfloat16", "bfloat16-weights")  # the second is autocast


def transformers_side(precision: str) -> Any:
    model = shape.transformers_model()
    return model.bfloat16() if precision == "bfloat16-weights" else model


def our_side(precision: str) -> Any:
    from blt.lm import BLT

    torch.manual_seed(0)
    model = BLT(shape.CONFIG)
    return model.bfloat16() if precision == "bfloat16-weights" else model


def train_transformers(precision: str, batch: int, length: int) -> Callable[[], None]:
    return transformers_step(transformers_side(precision).train(), batch, length, precision)


def train_ours(precision: str, batch: int, length: int) -> Callable[[], None]:
    return our_step(our_side(precision).train(), batch, length, precision)


def score_transformers(precision: str, batch: int, length: int) -> Callable[[], object]:
    model, ids = transformers_side(precision).eval(), shape.random_ids(batch, length)
    with torch.no_grad(), shape.numerics(precision):
        entropies = model.model.patcher(ids, patch_size=4, threshold=1.0)[0]
    model.config.patching_threshold = shape.calibrated_threshold(entropies)
    return lambda: model(input_ids=ids, use_cache=False).logits


def score_ours(precision: str, batch: int, length: int) -> Callable[[], object]:
    model, ids = our_side(precision).eval(), shape.random_ids(batch, length)
    documents = list(ids)
    with torch.no_grad(), shape.numerics(precision):
        entropies = torch.cat([e for e in model.decide(documents)[1] if e is not None])
    threshold = shape.calibrated_threshold(entropies)
    model.config = replace(
        model.config, patching=replace(model.config.patching, threshold=threshold)
    )
    return lambda: model.logits(documents)


def entropies_transformers(precision: str, batch: int, length: int) -> Callable[[], object]:
    model, ids = transformers_side(precision).eval(), shape.random_ids(batch, length)
    return lambda: model.model.patcher(ids, patch_size=4, threshold=1.0)


def entropies_ours(precision: str, batch: int, length: int) -> Callable[[], object]:
    model, ids = our_side(precision).eval(), shape.random_ids(batch, length)
    return lambda: model.decide(list(ids))


WORK: dict[tuple[str, str], Callable[[str, int, int], Callable[[], object]]] = {
    ("train", "transformers"): train_transformers,
    ("train", "ours"): train_ours,
    ("score", "transformers"): score_transformers,
    ("score", "ours"): score_ours,
    ("entropies", "transformers"): entropies_transformers,
    ("entropies", "ours"): entropies_ours,
}


def measure(job: str, side: str, precision: str, batch: int, length: int) -> dict[str, Any]:
    """bytes_per_second of the fastest repetition, and the process's peak memory in bytes."""
    work = WORK[job, side](precision, batch, length)

    def once() -> None:
        with torch.set_grad_enabled(job == "train"):
            if job == "train":
                work()
            else:
                with shape.numerics(precision):
                    work()

    seconds = fastest(once, SECONDS)
    return {"bytes_per_second": batch * length / seconds, "peak_memory": peak_memory()}


def matmul_peak(precision: str) -> dict[str, Any]:
    """FLOP/s of the fastest of a few large matrix products."""
    keep_freed_memory()
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    return {"flops": max(measured_flops(dtype, size, 8) for size in (1024, 2048, 4096))}
