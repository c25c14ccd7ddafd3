"""Attention in C++ is that of blocks, and only taken where it can be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blt.machine import cpp
from blt.model.kernels import blocks, host, tiles

needs_tiles = pytest.mark.skipif(
    tiles.library() is None, reason="needs a C++ compiler, and BLT_NATIVE not to be 0"
)


def tensors(lengths: list[int], heads: int, dim: int) -> tuple[tuple[int, ...], list[Tensor]]:
    """Offsets; and q, k, v as products give them, side by side, and a gradient."""
    torch.manual_seed(sum(lengths))
    qkv = torch.randn(sum(lengths), 3, heads, dim)
    q, k, v = qkv.unbind(1)
    return tuple(accumulate(lengths, initial=0)), [q * dim**-0.5, k, v, torch.randn(q.shape)]


@needs_tiles
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=5).filter(any),
    heads=st.integers(1, 3),
    dim=st.sampled_from([1, 7, 16, 24, 32, 48, 64, 80]),
    window=st.one_of(st.none(), st.integers(1, 320), st.sampled_from([32, 128, 256])),
)
def test_attention_in_cpp_equals_that_of_blocks_in_twice_the_precision(
    lengths: list[int], heads: int, dim: int, window: int | None
) -> None:
    offsets, (q, k, v, grad) = tensors(lengths, heads, dim)
    assert tiles.fits(q, offsets, window)
    exact = [x.double() for x in (q, k, v)]
    torch.testing.assert_close(
        tiles.attention(q, k, v, offsets, window).double(),
        blocks.block_attention(*exact, offsets, window),
        rtol=1e-5,
        atol=1e-5,
    )
    ours = tiles.attention_backward(grad, q, k, v, offsets, window)
    wanted = blocks.block_attention_backward(grad.double(), *exact, offsets, window)
    for found, expected in zip(ours, wanted, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5)


@needs_tiles
def test_a_document_is_the_same_whatever_is_beside_it_and_however_many_threads() -> None:
    offsets, (q, k, v, grad) = tensors([70, 129, 33], 2, 32)
    threads = torch.get_num_threads()
    whole = (tiles.attention(q, k, v, offsets, 64),)
    whole += tiles.attention_backward(grad, q, k, v, offsets, 64)
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        again = (tiles.attention(q, k, v, offsets, 64),)
        again += tiles.attention_backward(grad, q, k, v, offsets, 64)
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, whole, again))
    one = slice(70, 199)
    alone = (tiles.attention(q[one], k[one], v[one], (0, 129), 64),)
    alone += tiles.attention_backward(grad[one], q[one], k[one], v[one], (0, 129), 64)
    assert all(torch.equal(x[one], y) for x, y in zip(whole, alone, strict=True))


@needs_tiles
@pytest.mark.parametrize("reached", ["k", "v"])
def test_what_a_query_does_not_see_does_not_reach_it(reached: str) -> None:
    offsets, (q, k, v, _) = tensors([100, 100], 1, 16)
    before = tiles.attention(q, k, v, offsets, 32)
    {"k": k, "v": v}[reached][[3, 60, 150]] += 1e4
    after = tiles.attention(q, k, v, offsets, 32)
    touched = [row for at in (3, 60, 150) for row in range(at, at + 32)]
    assert (after[touched] != before[touched]).any(2).all()
    untouched = [row for row in range(200) if row not in touched]
    assert torch.equal(after[untouched], before[untouched])


@needs_tiles
@pytest.mark.parametrize(
    ("change", "window"),
    [
        (lambda x: x.double(), 64),
        (lambda x: x.bfloat16(), 64),
        (lambda x: torch.nn.Parameter(x), 64),
        (lambda x: x.expand(tiles.MOST_KEYS + 1, -1, -1), None),
    ],
    ids=["float64", "bfloat16", "a subclass", "long"],
)
def test_what_does_not_fit_is_left_to_blocks(
    change: Callable[[Tensor], Tensor], window: int | None
) -> None:
    q = torch.randn(1, 2, 16)
    assert tiles.fits(q, (0, 1), window)
    changed = change(q)
    assert not tiles.fits(changed, (0, len(changed)), window)


@needs_tiles
def test_who_counts_operations_sees_them() -> None:
    offsets, (q, k, v, grad) = tensors([200], 2, 32)
    with FlopCounterMode(display=False) as counter:
        host.attention(q, k, v, offsets, 64)
        host.attention_backward(grad, q, k, v, offsets, 64)
    assert counter.get_total_flops() > 7 * 2 * 200 * 64 * 64


@needs_tiles
def test_threads_that_cpp_cannot_share_leave_it_to_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp, "shares_threads", lambda: False)
    q = torch.randn(8, 2, 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not tiles.fits(q, (0, 8), None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert tiles.fits(q, (0, 8), None)


def test_without_a_compiler_blocks_do_it() -> None:
    program = (
        "import torch; from blt.model.kernels import host, tiles; q = torch.randn(8, 2, 16);"
        "assert not tiles.fits(q, (0, 8), None); host.attention(q, q, q, (0, 8), None)"
    )
    for named, value in (("BLT_NATIVE", "0"), ("CXX", "/no/compiler")):
        environment = {**os.environ, named: value, "XDG_CACHE_HOME": "/nowhere/to/write"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said = "attention runs in PyTorch" in done.stderr
        assert said == (named == "CXX")
