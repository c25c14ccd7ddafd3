"""transformers' BLT: the same shape and work, as its users would have it."""

from __future__ import annotations

from benchmarks import shape
from benchmarks.gpu_jobs import shapes
from benchmarks.gpu_jobs.place import Found, Place
from benchmarks.gpu_jobs.plan import CONTEXT
from benchmarks.steps import transformers_step, transformers_writer

PROMPT = 1024  # bytes


def training(place: Place, config: str, rows: int, context: int = CONTEXT) -> Found:
    """Steps with given patches, in bfloat16 autocast."""
    rows, context = place.sized(rows, 2), place.sized(context, 128)
    model = shapes.of_transformers(shapes.blt_shape(config, place), place.device).train()
    step = transformers_step(model, rows, context, "bfloat16")
    yield {"first_step_seconds": place.timed(step)}
    yield {"bytes_per_second": rows * context / place.seconds(step)}


def decoding(place: Place, config: str) -> Found:
    """Without a cache, which it does not have: a full forward for every byte."""
    model = shapes.of_transformers(shapes.blt_shape(config, place), place.device).bfloat16().eval()
    ids = shape.random_ids(1, place.sized(PROMPT, 64)).to(place.device)
    yield {"bytes_per_second": 1 / place.seconds(transformers_writer(model, ids))}
