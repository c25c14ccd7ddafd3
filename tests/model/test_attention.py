"""Attention and segment operations equal plain PyTorch, forward and backward, in linear memory."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import blt
from blt.model.embedding import PRIMES, ByteEmbedding, looking_back, ngram_rows
from blt.model.kernels import flash, segment_max
from blt.model.kernels.causal import attention
from blt.model.kernels.segments import gather, segment_softmax, segment_sum
from blt.model.layers import RMSNorm, SwiGLU
from blt.model.packing import Spans
from shapes import tiny_config


def dense(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: Spans, window: int | None
) -> Any:
    """One big mask, the way we never do it."""
    document = torch.repeat_interleave(
        torch.arange(len(spans.lengths)), torch.tensor(spans.lengths)
    )
    i, j = torch.arange(len(q))[:, None], torch.arange(len(q))
    visible = (document[:, None] == document) & (j <= i)
    if window is not None:
        visible &= i - j < window
    heads_first = (x.transpose(0, 1) for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=visible, scale=1.0).transpose(
        0, 1
    )


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=5),
    window=st.one_of(st.none(), st.integers(1, 300), st.just(128), st.just(512)),
)
def test_attention_equals_a_dense_mask(lengths: list[int], window: int | None) -> None:
    spans = Spans.from_lengths(lengths)
    torch.manual_seed(sum(lengths))
    shape = (sum(lengths), 2, 8)
    q, k, v = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3))
    ours, wanted = attention(q, k, v, spans.offsets, window), dense(q, k, v, spans, window)
    torch.testing.assert_close(ours, wanted)
    upstream = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), upstream),
        torch.autograd.grad(wanted, (q, k, v), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("window", [None, 1, 5, 64])
def test_what_flash_attention_is_asked_for_is_what_the_blocks_do(
    monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    """A stand-in does on the CPU what the kernel's documentation promises."""

    def promised(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
    ) -> torch.Tensor:
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert max_q == max_k == max(cu_seq_q.diff())
        left, right = window_size
        parts = []
        for first, end in pairwise(cu_seq_q.tolist()):
            i, j = torch.arange(end - first)[:, None], torch.arange(end - first)
            seen = (j <= i + right) & ((left == -1) | (j >= i - left))
            heads_first = (x[first:end].transpose(0, 1) for x in (q, k, v))
            out = F.scaled_dot_product_attention(*heads_first, attn_mask=seen, scale=scale)
            parts.append(out.transpose(0, 1))
        return torch.cat(parts)

    q, k, v = (torch.randn(130, 2, 8) for _ in range(3))
    offsets = (0, 1, 100, 130)
    blocks = attention(q, k, v, offsets, window)
    monkeypatch.setattr("blt.model.kernels.causal.fits_flash", lambda _: True)
    monkeypatch.setattr(flash, "_attend", promised)
    torch.testing.assert_close(attention(q, k, v, offsets, window), blocks)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_segment_operations_equal_loops(lengths: list[int]) -> None:
    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    x = torch.randn(len(ids), 3, dtype=torch.float64, requires_grad=True)
    parts = x.split(lengths)
    for ours, wanted in (
        (segment_sum(x, ids, len(lengths)), torch.stack([p.sum(0) for p in parts])),
        (segment_max(x, ids, len(lengths)), torch.stack([p.amax(0) for p in parts])),
        (gather(x[: len(lengths)], ids), x[: len(lengths)][ids]),
    ):
        torch.testing.assert_close(ours, wanted)
        upstream = torch.randn_like(ours)
        torch.testing.assert_close(
            torch.autograd.grad(ours, x, upstream), torch.autograd.grad(wanted, x, upstream)
        )
    softmax = segment_softmax(x, ids, len(lengths))
    wanted = torch.cat([p.float().softmax(0) for p in parts])
    torch.testing.assert_close(softmax, wanted, check_dtype=False)


def test_rows_that_share_a_maximum_share_its_gradient_evenly() -> None:
    x = torch.tensor([[2.0], [2.0], [1.0], [3.0]], requires_grad=True)
    segment_max(x, torch.tensor([0, 0, 0, 1]), 2).backward(torch.tensor([[6.0], [5.0]]))
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [3.0, 3.0, 0.0, 5.0]


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=4), st.integers(1, 11))
def test_ngram_rows_are_the_wrapping_polynomial_hash(texts: list[bytes], functions: int) -> None:
    documents = [blt.encode(text) for text in texts]
    spans = Spans.from_lengths([len(ids) for ids in documents])
    sizes, rows = (3, 5, 8), 500002
    back = looking_back(torch.cat(documents), spans.positions, max(sizes))
    ours = spans.split(ngram_rows(back, sizes, functions, rows))
    for ids, found in zip(documents, ours, strict=True):
        padded = [0] * 8 + ids.tolist()
        for t in range(len(ids)):
            wanted = []
            for prime in PRIMES[:functions]:
                for n in sizes:
                    gram = padded[t + 8 - n + 1 : t + 8 + 1]
                    exact = sum(token * prime**j for j, token in enumerate(gram))
                    wrapped = (exact + 2**63) % 2**64 - 2**63  # int64
                    wanted.append(wrapped % rows + len(wanted) * rows)
            assert found[t].tolist() == wanted


def test_sparse_and_dense_table_gradients_are_equal() -> None:
    torch.manual_seed(0)
    embedding = ByteEmbedding(8, (3, 4), 1, 50)
    spans = Spans.from_lengths([40, 25])
    ids = torch.randint(4, 20, (65,))
    upstream = torch.randn(65, 8)
    (wanted,) = torch.autograd.grad(embedding(ids, spans.positions), embedding.ngram, upstream)
    embedding.sparse_gradients = True
    (found,) = torch.autograd.grad(embedding(ids, spans.positions), embedding.ngram, upstream)
    assert found.is_sparse
    torch.testing.assert_close(found.to_dense(), wanted)
    rows = found._indices()[0]
    assert bool((rows.diff() > 0).all()), "each row once, in order"


@given(st.integers(1, 6), st.integers(1, 5))
def test_norm_and_feed_forward_equal_plain_pytorch(rows: int, extra: int) -> None:
    norm, ff = RMSNorm(16, 1e-5).double(), SwiGLU(16, 24).double()
    torch.nn.init.uniform_(norm.weight, -1.0, 1.0)
    x = torch.randn(rows, extra, 16, dtype=torch.float64, requires_grad=True)
    wanted = F.rms_norm(x, (16,), norm.weight, 1e-5)
    torch.testing.assert_close(norm(x), wanted)
    gate, up = F.linear(wanted, ff.gate_up.weight).chunk(2, -1)
    wanted = F.linear(F.silu(gate) * up, ff.down.weight).flatten(0, 1)
    ours = ff(norm(x).flatten(0, 1))
    torch.testing.assert_close(ours, wanted)
    inputs = (x, norm.weight, ff.gate_up.weight, ff.down.weight)
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream)
    )


class Largest(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, tuple | list) else (out,):
            if isinstance(item, torch.Tensor):
                # A view does not own its elements; what it looks at was counted before.
                self.numel = max(self.numel, item.untyped_storage().nbytes() // item.itemsize)
        return out


@pytest.mark.parametrize("training", [True, False])
def test_no_mask_of_bytes_by_bytes_or_bytes_by_patches_exists(training: bool) -> None:
    model = blt.BLT(tiny_config(hash_rows=7))
    largest = []
    for length in (4096, 8192):
        batch = model.pack([torch.randint(4, 260, (length,))])
        with Largest() as mode, torch.set_grad_enabled(training):
            logits = model(batch)
            if training:
                logits.sum().backward()
        largest.append(mode.numel)
        assert mode.numel < length * batch.num_patches / 4
    assert largest[1] <= 2.1 * largest[0]


def test_long_documents_without_gradients_have_the_same_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are read in another way, which keeps no rows of scores."""
    monkeypatch.setattr("blt.model.kernels.causal.LONG", 100)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(400, 2, 8, generator=generator) for _ in range(3))
    offsets = (0, 7, 300, 400)
    expected = attention(q, k, v, offsets)
    with torch.no_grad():
        found = attention(q, k, v, offsets)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_newest_flash_attention_that_works_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of those installed; one that cannot be used is named."""
    tried: list[str] = []

    def activate(name: str) -> None:
        tried.append(name)
        if name in broken:
            raise RuntimeError("built for another PyTorch")

    stub = SimpleNamespace(activate_flash_attention_impl=activate)
    monkeypatch.setattr(flash, "import_module", lambda name: stub)
    installed, broken = {"flash_attn", "flash_attn_interface"}, {"FA4"}
    monkeypatch.setattr(flash, "find_spec", lambda name: name in installed or None)
    assert flash.choose() == "FA3"
    assert tried == ["FA4", "FA3"]
    assert "FA4 is installed but cannot be used (built for another PyTorch)" in caplog.text
    installed = set()
    assert flash.choose() == "FA2"
