"""Does the device compute what the CPU computes? Errors are relative to the largest number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import blt
from benchmarks import shape
from benchmarks.gpu_jobs import shapes
from benchmarks.gpu_jobs.decoding import check
from benchmarks.gpu_jobs.place import Found, Place
from blt.generate import Engine
from blt.model.packing import PackedBatch, pack

WRITTEN = 48  # bytes
PROMPTS = ((b"some text", 0), (b"", 3), (bytes(range(200)), 0))  # and bytes of a draft


def parity(place: Place) -> Found:
    """Logits, entropies, gradients and greedily written bytes, here and on the CPU."""
    torch.manual_seed(0)
    on_cpu = blt.BLT(shapes.blt_shape("small", place)).eval()
    there = blt.BLT(on_cpu.config).eval()
    there.load_state_dict(on_cpu.state_dict())
    there.to(place.device)
    documents = [blt.encode(bytes(range(256)) * n) for n in (1, 3)]
    packed = on_cpu.pack(documents)
    moved = pack(
        [ids.to(place.device) for ids in documents],
        [decision.to(place.device) for decision in on_cpu.decide(documents)[0]],
    )
    expected = on_cpu(packed).detach()
    for name, precision in (("float32", "float32"), ("bf16", "bfloat16")):
        with torch.no_grad(), shape.numerics(precision, place.device):
            yield {f"{name}_error": _error(there(moved).float().cpu(), expected)}
    yield {"entropy_error": _entropy_error(on_cpu, there, documents)}
    yield {"float32_gradient_error": _gradient_error(on_cpu, there, packed, moved)}
    yield {"greedy_bytes_equal": _greedy(on_cpu, PROMPTS[:1]) == _greedy(there, PROMPTS[:1])}
    yield {"greedy_bytes_of_three_equal": _greedy(on_cpu, PROMPTS) == _greedy(there, PROMPTS)}


def _greedy(model: blt.BLT, prompts: Sequence[tuple[bytes, int]]) -> list[bytes]:
    """What is written after prompts at the same time, each with drafts of so many bytes."""
    engine = Engine(model, precision="float32", native=False)
    handles = [
        engine.submit(prompt, max_bytes=WRITTEN, draft_bytes=drafts) for prompt, drafts in prompts
    ]
    texts = [handle.result().data for handle in handles]
    check(handles)
    return texts


def _error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def _entropy_error(on_cpu: blt.BLT, there: blt.BLT, documents: Sequence[Tensor]) -> float:
    """In nats."""
    expected = on_cpu.decide(documents)[1]
    found = there.decide([ids.to(there.device) for ids in documents])[1]
    errors = []
    for a, b in zip(expected, found, strict=True):
        assert a is not None
        assert b is not None
        errors.append(float((a - b.cpu()).abs().max()))
    return max(errors)


def _gradient_error(
    on_cpu: blt.BLT, there: blt.BLT, packed: PackedBatch, moved: PackedBatch
) -> float:
    """Of the parameter whose gradient differs most; hash tables, with sparse ones, left out."""
    for model, batch in ((on_cpu, packed), (there, moved)):
        logits = model(batch)
        nothing = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        F.cross_entropy(logits, nothing).backward()
    errors = []
    for (name, a), b in zip(on_cpu.named_parameters(), there.parameters(), strict=True):
        if a.grad is not None and b.grad is not None and not name.endswith("ngram"):
            errors.append(float((a.grad - b.grad.cpu()).norm() / a.grad.norm().clamp_min(1e-12)))
    return max(errors)
