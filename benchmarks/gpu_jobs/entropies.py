"""Entropies of bytes, as patching live text takes them."""

from __future__ import annotations

import torch

from benchmarks import shape
from benchmarks.gpu_jobs import shapes
from benchmarks.gpu_jobs.place import Found, Place
from benchmarks.gpu_jobs.plan import CONTEXT
from blt.machine.hardware import peak_flops
from blt.model.flops import byte_transformer_flops


def entropies(place: Place, rows: int) -> Found:
    """Of the 1B's entropy model, for ``rows`` documents of 8192 bytes at a time."""
    rows, context = place.sized(rows, 2), place.sized(CONTEXT, 128)
    config = shapes.entropy_shape(place)
    model = shapes.over_bytes(config, place.device).eval()
    documents = list(shape.random_ids(rows, context).to(place.device))

    def work() -> None:
        with torch.no_grad(), shape.numerics("bfloat16", place.device):
            model.document_entropies(documents)

    yield {"first_seconds": place.timed(work)}
    speed = rows * context / place.seconds(work)
    peak = peak_flops(place.device, torch.bfloat16)
    flops = byte_transformer_flops(config, context)
    yield {"bytes_per_second": speed, "mfu": flops * speed / peak if peak else None}
