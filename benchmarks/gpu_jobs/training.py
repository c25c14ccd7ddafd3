"""Training steps with given patches: forward, backward, clipping, optimisers; bf16 products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import shape
from benchmarks.gpu_jobs import shapes
from benchmarks.gpu_jobs.place import Found, Place
from benchmarks.gpu_jobs.plan import CONTEXT
from benchmarks.gpu_jobs.profile import profiled
from benchmarks.steps import prepared_step
from blt.machine.hardware import peak_flops
from blt.model.flops import TRAINING_FACTOR, flops_per_byte, token_transformer_flops


def training(
    place: Place,
    config: str,
    rows: int,
    patch_size: float = shape.MEAN_PATCH_SIZE,
    recomputed: bool = False,
    compiled: bool | None = None,
    profile: bool = False,
) -> Found:
    """Speed of steps, and the share of the device's peak that they reach.

    Args:
        config: name of a shape, or "tokens" for a transformer over tokens, which reads as many
            bytes in a step.
        rows: documents of 8192 bytes in a step.
        profile: also where the time of a step goes.
    """
    rows, context = place.sized(rows, 2), place.sized(CONTEXT, 128)  # bytes
    options: dict[str, Any] = {"recomputed": recomputed}
    if config == "tokens":
        tokens = shapes.token_shape(place)
        flops = token_transformer_flops(tokens, shapes.TOKEN_SIZE, context) * TRAINING_FACTOR

        def prepared(**options: Any) -> Callable[[], None]:
            model = shapes.over_tokens(tokens, place.device)
            return prepared_step(model, rows, round(context / shapes.TOKEN_SIZE), **options)
    else:
        shaped = shapes.blt_shape(config, place)
        flops = flops_per_byte(shaped, patch_size, context).training
        options["patch_size"] = patch_size

        def prepared(**options: Any) -> Callable[[], None]:
            return prepared_step(shapes.spaced(shaped, place.device), rows, context, **options)

    step = prepared(compiled=compiled, **options)
    yield {"first_step_seconds": place.timed(step)}
    seconds = place.seconds(step)
    speed, peak = rows * context / seconds, peak_flops(place.device, torch.bfloat16)
    yield {
        "bytes_per_second": speed,
        "mfu": flops * speed / peak if peak else None,
        "step_seconds": seconds,
    }
    if profile:
        yield profiled(place, step, f"training-{config}", seconds)
