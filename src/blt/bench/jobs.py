"""One measurement: ``python -m blt.bench.jobs JOB SIDE PRECISION BATCH LENGTH``.

Separate processes keep one side's memory and settings from touching the other's.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from blt.bench import shape
from blt.machine.hardware import peak_memory

SECONDS = 6.0  # of repetition per measurement, after one warm-up
PRECISIONS = ("float32", "bfloat16", "bfloat16-weights")  # the second is autocast


def fastest(work: Callable[[], object], seconds: float = SECONDS) -> float:
    """Seconds of the fastest repetition."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def numerics(precision: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


def transformers_side(precision: str) -> Any:
    model = shape.transformers_model()
    return model.bfloat16() if precision == "bfloat16-weights" else model


def our_side(precision: str) -> Any:
    from blt.lm import BLT

    torch.manual_seed(0)
    model = BLT(shape.CONFIG)
    return model.bfloat16() if precision == "bfloat16-weights" else model


# --- training steps: forward, loss, backward, clipping, optimiser; patches are given --------------


def train_transformers(precision: str, batch: int, length: int) -> Callable[[], None]:
    model = transformers_side(precision).train()
    ids, lengths = shape.random_ids(batch, length), shape.random_patches(batch, length)
    lengths = F.pad(lengths, (0, 1))  # the patch that would open next, empty
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def step() -> None:
        with numerics(precision):
            loss = model(input_ids=ids, patch_lengths=lengths, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def train_ours(precision: str, batch: int, length: int) -> Callable[[], None]:
    from blt.model.packing import pack
    from blt.train.optim import clip_gradients, optimizers

    model = our_side(precision).train()
    ids, lengths = shape.random_ids(batch, length), shape.random_patches(batch, length)
    packed = pack(list(ids), shape.decisions(lengths))
    targets = F.pad(ids[:, 1:], (0, 1), value=-1).flatten()
    both = optimizers(model, 1e-4, (0.9, 0.95), 0.1)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def step() -> None:
        with numerics(precision):
            loss = F.cross_entropy(model(packed).float(), targets, ignore_index=-1)
        loss.backward()
        clip_gradients(parameters, 1.0)
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad()

    return step


# --- scoring and entropies ----------------------------------------------------------------------


def calibrated_threshold(entropies: torch.Tensor) -> float:
    """The quantile of entropies that cuts patches of 4.5 bytes on average."""
    return float(entropies.float().flatten().quantile(1 - 1 / shape.MEAN_PATCH_SIZE))


def score_transformers(precision: str, batch: int, length: int) -> Callable[[], object]:
    model, ids = transformers_side(precision).eval(), shape.random_ids(batch, length)
    with torch.no_grad(), numerics(precision):
        entropies = model.model.patcher(ids, patch_size=4, threshold=1.0)[0]
    model.config.patching_threshold = calibrated_threshold(entropies)
    return lambda: model(input_ids=ids, use_cache=False).logits


def score_ours(precision: str, batch: int, length: int) -> Callable[[], object]:
    from dataclasses import replace

    model, ids = our_side(precision).eval(), shape.random_ids(batch, length)
    documents = list(ids)
    with torch.no_grad(), numerics(precision):
        entropies = torch.cat([e for e in model.decide(documents)[1] if e is not None])
    threshold = calibrated_threshold(entropies)
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
                with numerics(precision):
                    work()

    seconds = fastest(once)
    return {"bytes_per_second": batch * length / seconds, "peak_memory": peak_memory()}


def matmul_peak(precision: str) -> dict[str, Any]:
    """FLOP/s of the fastest of a few large matrix products."""
    from blt.machine.runtime import keep_freed_memory

    keep_freed_memory()
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        best = max(best, 2 * size**3 / fastest(partial(torch.matmul, a, b), 2.0))
    return {"flops": best}


def main() -> None:
    job, side, precision, batch, length = sys.argv[1:]
    if job == "peak":
        result = matmul_peak(precision)
    else:
        result = measure(job, side, precision, int(batch), int(length))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
