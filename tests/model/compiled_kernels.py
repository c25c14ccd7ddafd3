"""What the Triton kernels take of an H100, found without one: what they launch is compiled for it.

Run by ``test_gpu_kernels.py``: TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

import blt
from blt.model.kernels.gpu import (
    decode_attention,
    fused,
    own_bytes,
    own_patch,
    row_sums,
    segment_max,
)

H100 = GPUTarget("cuda", 90, 32)
SHARED = 227 * 1024  # bytes that a program may have
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
TYPES = {
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
OPTIONS = {"num_warps"}
N, P = 32768, 7282  # bytes and patches
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Shape:
    """Widths of the local model and of the global one."""

    d: int
    heads: int
    k: int
    global_heads: int
    global_width: int  # of a head
    ngrams: int


small = blt.Config()
SHAPES = {
    "1B": Shape(1024, 16, 2, 16, 128, 6),
    "small": Shape(
        small.local_dim,
        small.local_heads,
        small.cross_attention_k,
        small.global_heads,
        small.global_dim // small.global_heads,
        len(small.hash_ngram_sizes) * small.hash_functions,
    ),
}


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def launches(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> list[Launch]:
    """What ``call`` would launch: kernel, arguments, constants and options."""
    found: list[Launch] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **more: Any) -> None:
        found.append((kernel, args, more))

    with monkeypatch.context() as patched:
        patched.setattr(JITFunction, "run", run)
        call()
    return found


def kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def compiled(launch: Launch) -> Any:
    """For an H100, with multiples of 16 known as such, as at run time."""
    kernel, args, more = launch
    constants = {name: value for name, value in more.items() if name not in OPTIONS}
    options = {name: value for name, value in more.items() if name in OPTIONS}
    signature = dict(zip(kernel.arg_names, map(kind, args), strict=False))
    signature |= dict.fromkeys(constants, "constexpr")
    attrs = {
        (i,): [["tt.divisibility", 16]]
        for i, arg in enumerate(args)
        if isinstance(arg, Tensor) or (isinstance(arg, int) and arg % 16 == 0)
    }
    source = ASTSource(kernel, signature, constants, attrs)
    return triton.compile(source, target=H100, options=options)


def check(launch: Launch, folder: Path) -> None:
    """No register is spilled, and shared memory suffices."""
    built = compiled(launch)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(built.asm["cubin"])
    command = [str(CUOBJDUMP), "--dump-resource-usage", str(cubin)]
    usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)
    assert {name for name, _ in found} == {"REG", "STACK", "LOCAL"}
    spilled = [(name, bytes_) for name, bytes_ in found if name != "REG" and bytes_ != "0"]
    assert not spilled, (built.metadata.name, usage)
    assert built.metadata.shared <= SHARED


def calls(shape: Shape) -> dict[str, Callable[[], object]]:
    """Every wrapper, as a training step or a decoded byte of this shape calls it."""
    d, heads, k = shape.d, shape.heads, shape.k
    x, patches, offsets = meta(N, d), meta(P, k, d), meta(P + 1, dtype=torch.int32)
    keys, values = meta(P, k, 2 * d).chunk(2, -1)
    byte_keys, byte_values = meta(N, 2 * d).chunk(2, -1)
    weights, lse = (meta(n, k, heads, dtype=torch.float32) for n in (N, P))
    ids, rows = meta(N, dtype=torch.int64), meta(N, shape.ngrams, dtype=torch.int64)
    order, first = (meta(n, dtype=torch.int64) for n in (N * shape.ngrams, 100001))

    def decode(head_count: int, width: int, ring: bool) -> Tensor:
        cache, ends = meta(64, head_count, 2048, width), meta(64, dtype=torch.int32)
        texts = None if ring else meta(64, dtype=torch.int64)
        return decode_attention.decode_attention(
            meta(64, head_count, width), cache, cache, ends, ends, 0.1, ring, texts
        )

    saved = (offsets, heads, 0.1)
    scale = meta(d, dtype=torch.float32)
    turns = meta(N, 2, 1, d // heads // 2, 2, dtype=torch.float32)
    return {
        "own_patch": lambda: (
            own_patch.forward(x, keys, values, ids, heads, 0.1),
            own_patch.backward(x, x, keys, values, offsets, weights, heads, 0.1),
        ),
        "own_bytes": lambda: (
            own_bytes.forward(patches, byte_keys, byte_values, *saved),
            own_bytes.backward(patches, patches, byte_keys, byte_values, patches, lse, *saved),
        ),
        "segment_max": lambda: (
            segment_max.forward(x, offsets),
            segment_max.backward(meta(P, d), x, meta(P, d), offsets),
        ),
        "row_sums": lambda: (
            row_sums.forward(meta(300000, d), rows, torch.bfloat16),
            row_sums.backward(x, order, first, shape.ngrams),
        ),
        "fused": lambda: (
            fused.add_norm(meta(N, d, dtype=torch.float32), x, scale, 1e-5, torch.bfloat16),
            fused.add_norm(patches, None, scale, 1e-5, torch.bfloat16),
            fused.rotated_queries_keys(meta(N, 3, heads, d // heads), turns),
            fused.swiglu(meta(N, 2 * 2816)),
        ),
        "decode_attention": lambda: (
            decode(heads, d // heads, True),
            decode(shape.global_heads, shape.global_width, False),
        ),
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", calls(SHAPES["small"]))
def test_kernel_fits(
    kernel: str, shape: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = launches(monkeypatch, calls(SHAPES[shape])[kernel])
    assert len(found) >= 2
    for launch in found:
        check(launch, tmp_path)
