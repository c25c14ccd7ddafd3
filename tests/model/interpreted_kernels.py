"""Properties of the Triton kernels, for a process in which they are interpreted on the CPU.

Run by ``test_gpu_kernels.py``: triton has to be imported with TRITON_INTERPRET=1, which other tests
must not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import blt
from blt.model.kernels import operators, plain
from blt.model.kernels.gpu import (
    decode_attention,
    fused,
    own_bytes,
    own_patch,
    row_sums,
    segment_max,
)
from shapes import tiny_config

BY_WORDS = tiny_config(patching=blt.PatchingConfig(rule="space"), entropy_model=None)
TEXTS = (b"of a patch or two", b"one, 2")  # patches of one byte and of many

TOLERANCES = {torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}

settings.register_profile("interpreted", parent=settings.get_profile("default"), max_examples=6)
settings.load_profile("interpreted")

size = st.one_of(st.integers(1, 6), st.integers(1, 60))
counts = st.lists(size, min_size=1, max_size=3)
counts_or_none = st.lists(st.one_of(st.just(0), size), min_size=1, max_size=4).filter(any)
heads = st.tuples(st.integers(1, 5), st.sampled_from([2, 6, 16, 32]))  # and features of each
slices = st.integers(1, 5)
dtypes = st.sampled_from(list(TOLERANCES))
index_dtypes = st.sampled_from([torch.int32, torch.int64])


def segments(counts: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Offsets, and the segment of each row."""
    ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return torch.tensor([0, *counts]).cumsum(0).to(dtype), ids


def random(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).to(dtype)


def exactly(*tensors: Tensor) -> list[Tensor]:
    """The same numbers in float64, to differentiate with respect to."""
    return [x.detach().double().requires_grad_() for x in tensors]


def check(ours: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for a, b in zip(ours, wanted, strict=True):
        tolerance = TOLERANCES[a.dtype]
        torch.testing.assert_close(a.double(), b.detach(), rtol=tolerance, atol=tolerance)


@given(counts_or_none, heads, slices, dtypes, index_dtypes)
def test_own_patch(
    counts: list[int], head: tuple[int, int], k: int, dtype: torch.dtype, index: torch.dtype
) -> None:
    torch.manual_seed(sum(counts))
    offsets, ids = segments(counts, index)
    d, patches, scale = head[0] * head[1], (len(counts), k, *head), head[1] ** -0.5
    q, grad = random((2, len(ids), d), dtype)
    keys, values = random((len(counts), k, 2 * d), dtype).chunk(2, -1)

    exact = exactly(q, keys, values)
    own_keys, own_values = (x.reshape(patches)[ids] for x in exact[1:])
    scores = torch.einsum("nhd,nkhd->nkh", exact[0].view(-1, *head), own_keys) * scale
    weights = scores.softmax(1)
    out = torch.einsum("nkh,nkhd->nhd", weights, own_values).flatten(1)

    ours = own_patch.forward(q, keys, values, ids, head[0], scale)
    check(ours, (out, weights))
    saved = (offsets, ours[1], head[0], scale)
    grads = own_patch.backward(grad, q, keys, values, *saved)
    check(grads, torch.autograd.grad(out, exact, grad.double()))


@given(counts, heads, slices, dtypes, index_dtypes)
def test_own_bytes(
    counts: list[int], head: tuple[int, int], k: int, dtype: torch.dtype, index: torch.dtype
) -> None:
    torch.manual_seed(sum(counts))
    offsets, ids = segments(counts, index)
    d, patches, scale = head[0] * head[1], (len(counts), k, *head), head[1] ** -0.5
    q, grad = random((2, len(counts), k, d), dtype)
    keys, values = random((len(ids), 2 * d), dtype).chunk(2, -1)

    exact = exactly(q, keys, values)
    queries = exact[0].view(patches)
    own_keys, own_values = (x.reshape(-1, *head).split(counts) for x in exact[1:])
    scores = [
        torch.einsum("khd,nhd->khn", query, key) * scale
        for query, key in zip(queries, own_keys, strict=True)
    ]
    attended = [
        torch.einsum("khn,nhd->khd", score.softmax(2), value)
        for score, value in zip(scores, own_values, strict=True)
    ]
    out = torch.stack(attended).flatten(2)

    ours = own_bytes.forward(q, keys, values, offsets, head[0], scale)
    check(ours, (out, torch.stack([s.logsumexp(2) for s in scores])))
    saved = (*ours, offsets, head[0], scale)
    grads = own_bytes.backward(grad, q, keys, values, *saved)
    check(grads, torch.autograd.grad(out, exact, grad.double()))


def test_own_bytes_with_scores_far_below_zero() -> None:
    q, keys = torch.full((1, 1, 8), 9.0), torch.full((1, 8), -9.0)
    offsets = torch.tensor([0, 1])
    out, lse = own_bytes.forward(q, keys, keys, offsets, 2, 1.0)
    assert torch.equal(out[0], keys)
    grads = own_bytes.backward(q, q, keys, keys, out, lse, offsets, 2, 1.0)
    wanted = (torch.zeros_like(q), torch.zeros_like(keys), q[0])
    assert all(torch.equal(a, b) for a, b in zip(grads, wanted, strict=True))


@given(counts, st.integers(1, 70), dtypes, index_dtypes)
def test_segment_max(counts: list[int], d: int, dtype: torch.dtype, index: torch.dtype) -> None:
    torch.manual_seed(sum(counts))
    offsets, ids = segments(counts, index)
    x = torch.randint(-5, 5, (len(ids), d)).to(dtype)  # so that rows share a maximum
    grad = random((len(counts), d), dtype)
    (exact,) = exactly(x)
    peak = torch.stack([rows.amax(0) for rows in exact.split(counts)])  # shares evenly, too

    ours = segment_max.forward(x, offsets)
    check([ours], [peak])
    dx = segment_max.backward(grad, x, ours, offsets)
    check([dx], torch.autograd.grad(peak, exact, grad.double()))


def test_segment_max_shows_what_is_not_a_number() -> None:
    x = torch.zeros(6, 3)
    x[1, 1] = torch.nan
    peak = segment_max.forward(x, torch.tensor([0, 4, 6]))
    assert peak.isnan().nonzero().tolist() == [[0, 1]]


# So many uses of a row that they are added up in chunks; and a run that ends with its chunk.
@example(60, 4, 1, 5, 1, torch.float32, torch.float32)
@example(32, 4, 1, 5, 0, torch.float32, torch.float32)
@given(
    st.integers(1, 60),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(0, 3),
    dtypes,
    dtypes,
)
def test_row_sums(
    n: int, c: int, size: int, d: int, spare: int, dtype: torch.dtype, out_dtype: torch.dtype
) -> None:
    torch.manual_seed(n)
    table, grad = random((size, d), dtype), random((n, d), dtype)
    rows = torch.randint(size, (n, c)) * torch.randint(2, (n, c))  # row 0 is in use more often
    (exact,) = exactly(table)
    out = exact[rows].sum(1)
    check([row_sums.forward(table, rows, out_dtype)], [out])

    used, order = rows.flatten().sort()
    touched, uses = used.unique_consecutive(return_counts=True)
    first = torch.cat([torch.zeros(1, dtype=torch.int64), uses.cumsum(0)])
    first = torch.cat([first, first[-1:].expand(spare)])  # runs that nothing is in
    values = row_sums.backward(grad, order, first, c)
    (wanted,) = torch.autograd.grad(out, exact, grad.double())
    check([values], [torch.cat([wanted[touched], torch.zeros(spare, d, dtype=torch.float64)])])


@example([(5, 1100)], (1, 2), 3, torch.float32, False, 1)  # more parts than are combined at once
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 150)), min_size=1, max_size=3),
    heads,
    st.sampled_from([1, 2, 3]),
    dtypes,
    st.booleans(),
    st.integers(1, 64),
)
def test_decode_attention(
    seen: list[tuple[int, int]],
    head: tuple[int, int],
    share: int,
    dtype: torch.dtype,
    ring: bool,
    more: int,
) -> None:
    """``seen`` holds the first position that each text sees, and how many it sees; ``share`` heads
    of queries have the same keys."""
    torch.manual_seed(len(seen))
    most = max(count if ring else start + count for start, count in seen)
    q = random((len(seen), share * head[0], head[1]), dtype)
    growing = torch.linspace(0.1, 2, most + more)[:, None, None]  # so that peaks come late
    cache = (torch.randn(2, len(seen), most + more, *head) * growing).to(dtype).transpose(2, 3)
    first, counts = torch.tensor(seen, dtype=torch.int32).t().contiguous()
    scale = head[1] ** -0.5
    ours = decode_attention.decode_attention(q, *cache, first, first + counts, scale, ring)

    for text, (start, count) in enumerate(seen):
        slots = torch.arange(start, start + count)
        slots = slots % (most + more) if ring else slots
        keys, values = (  # [H, seen, D]
            part[text, :, slots].double().repeat_interleave(share, 0) for part in cache
        )
        weights = (torch.einsum("hd,hsd->hs", q[text].double(), keys) * scale).softmax(1)
        check([ours[text]], [torch.einsum("hs,hsd->hd", weights, values)])

        # Alone, from slot 0, in a cache with other room: the same bits.
        alone = [F.pad(part[text, :, slots], (0, 0, 0, 200))[None] for part in cache]
        ends = (torch.tensor([end], dtype=torch.int32) for end in (0, count))
        again = decode_attention.decode_attention(q[text][None], *alone, *ends, scale)
        assert torch.equal(again[0], ours[text])

    # From caches in another order: the same bits too.
    order, named = torch.randperm(len(seen)), cache.new_zeros(2, len(seen) + 1, *cache.shape[2:])
    named[:, order + 1] = cache
    ends = (first, first + counts)
    again = decode_attention.decode_attention(q, *named, *ends, scale, ring, order + 1)
    assert torch.equal(again, ours)


def test_two_runs_give_the_same_bits() -> None:
    torch.manual_seed(0)
    offsets, ids = segments([3, 36, 1], torch.int32)
    x, patches, weights = torch.randn(40, 32), torch.randn(3, 2, 32), torch.rand(40, 2, 4)
    lse, order, first = torch.rand(3, 2, 4), torch.randperm(80), torch.tensor([0, 76, 80])
    calls = [
        lambda: own_patch.forward(x, patches, patches, ids, 4, 0.3),
        lambda: own_patch.backward(x, x, patches, patches, offsets, weights, 4, 0.3),
        lambda: own_bytes.forward(patches, x, x, offsets, 4, 0.3),
        lambda: own_bytes.backward(patches, patches, x, x, patches, lse, offsets, 4, 0.3),
        lambda: [segment_max.forward(x, offsets)],
        lambda: [segment_max.backward(patches[:, 0], x, patches[:, 1], offsets)],
        lambda: [row_sums.forward(x, order.view(40, 2) % 40, torch.float32)],
        lambda: [row_sums.backward(x, order, first, 2)],
    ]
    for call in calls:
        assert all(torch.equal(a, b) for a, b in zip(call(), call(), strict=True))


def test_a_model_whose_operators_are_kernels_learns_as_one_without() -> None:
    """What the operators hand to the kernels, forward and backward, through a whole BLT."""
    grads: list[dict[str, Tensor]] = []
    for run in (operators.in_triton, lambda x, name, slices=1: operators.kernels(name)):
        torch.manual_seed(0)
        model = blt.BLT(BY_WORDS)
        model.encoder.embedding.sparse_gradients = True
        documents = [blt.encode(text) for text in TEXTS]
        with (
            patch.object(operators, "in_triton", run),
            patch("blt.model.kernels.bags.in_triton", run),
        ):
            logits = model.packed_logits(documents)
            F.cross_entropy(logits, torch.cat(documents)).backward()  # type: ignore[no-untyped-call]
            assert torch.isfinite(logits).all()
        found = model.named_parameters()
        grads.append({name: p.grad.to_dense() for name, p in found if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 5), heads, dtypes, st.booleans(), st.booleans())
def test_what_lies_between_products_equals_the_plain_formulas(
    rows: int, head: tuple[int, int], dtype: torch.dtype, adds: bool, stream_is_wide: bool
) -> None:
    """Residual and norm, rotations, SwiGLU; the residual stream may be wider than what is added."""
    torch.manual_seed(rows)
    d, scale = head[0] * head[1], torch.rand(head[0] * head[1]) + 0.5
    x = random((rows, 2, d), torch.float32 if stream_is_wide else dtype)
    delta = random((rows, 2, d), dtype) if adds else None
    ours = fused.add_norm(x, delta, scale, 1e-5, dtype)
    wanted = plain.add_norm(x, delta, scale, 1e-5, dtype)
    assert [one.dtype for one in ours] == [one.dtype for one in wanted]
    check(ours, [one.double() for one in wanted])
    qkv, angles = random((rows, 3, *head), dtype), torch.randn(rows, 2, 1, head[1] // 2)
    rope = torch.stack((angles.cos(), angles.sin()), -1)
    turned = plain.rotated_queries_keys(qkv, rope)
    check(fused.rotated_queries_keys(qkv, rope), [one.double() for one in turned])
    gate_up = random((rows, 2 * d + 2), dtype)
    check([fused.swiglu(gate_up)], [plain.swiglu(gate_up).double()])


def test_a_model_that_scores_in_kernels_says_what_one_without_says() -> None:
    torch.manual_seed(0)
    model = blt.BLT(BY_WORDS)
    documents = [blt.encode(text) for text in TEXTS]
    with torch.no_grad():
        wanted = model.packed_logits(documents)
        with patch.object(operators, "in_triton", lambda x, name, _=1: operators.kernels(name)):
            torch.testing.assert_close(model.packed_logits(documents), wanted, rtol=1e-4, atol=1e-4)
