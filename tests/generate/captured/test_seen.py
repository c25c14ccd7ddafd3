"""What new positions see of caches in fixed slots, with and without a kernel that reads no more."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from blt.generate.captured.attention import LayerCache, Seen

HEADS, WIDTH = 2, 4


def slow_kernel(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    first: Tensor,
    last: Tensor,
    scale: float,
    ring: bool = False,
    rows: Tensor | None = None,
) -> Tensor:
    """What ``blt.model.kernels.gpu.decode_attention`` promises, position by position."""
    assert first.dtype == last.dtype == torch.int32
    out = torch.zeros_like(q)
    for b in range(len(q)):
        row = b if rows is None else int(rows[b])
        at = torch.arange(int(first[b]), int(last[b]))
        at = at % keys.shape[2] if ring else at
        weights = torch.einsum("hd,hsd->hs", q[b], keys[row][:, at]).mul(scale).softmax(-1)
        out[b] = torch.einsum("hs,hsd->hd", weights, values[row][:, at])
    return out


@given(st.integers(0, 2**32), st.booleans(), st.booleans(), st.integers(1, 3))
def test_exactly_what_is_seen_is_attended_to(seed: int, ring: bool, named: bool, n: int) -> None:
    chance = random.Random(seed)
    texts, room = chance.randint(1, 4), chance.randint(n + 1, 9)
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(texts + 2, 2, HEADS, room, WIDTH, generator=generator)
    q = torch.randn(texts, n, HEADS, WIDTH, generator=generator)
    last = torch.tensor(
        [[end + j for j in range(n)] for end in (chance.randint(1, room - n) for _ in range(texts))]
    )
    if ring:
        last = last + room * chance.randint(0, 3)
    first = torch.stack(
        [last[:, j] - chance.randint(1, int(last[:, j].min())) for j in range(n)], 1
    )
    first = torch.maximum(first, last - room + n) if ring else first
    rows = torch.tensor([chance.randrange(texts + 2) for _ in range(texts)]) if named else None
    keys, values = memory.unbind(1)
    results = [
        Seen.of(first, last, memory, kernel, rows=rows, ring=ring).attend(q, keys, values, 0.7)
        for kernel in (None, slow_kernel)
    ]
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [None, slow_kernel])
def test_new_keys_go_to_their_slots_and_are_seen(kernel: object) -> None:
    memory = torch.zeros(3, 2, HEADS, 5, WIDTH)
    position = torch.tensor([[7, 8], [1, 2]])
    seen = Seen.of(position - 1, position + 1, memory, kernel, ring=True)  # type: ignore[arg-type]
    cache = LayerCache(memory, torch.tensor([[0, 0], [2, 2]]), position % 5, seen)
    q, k, v = torch.randn(3, 4, HEADS, WIDTH)
    found = cache.attend(q, k, v)
    torch.testing.assert_close(memory[0, 0, :, 2], k[0])
    torch.testing.assert_close(memory[2, 1, :, 2], v[3])
    assert torch.equal(memory[1], torch.zeros_like(memory[1]))
    weights = torch.stack((k[0], k[1])).mul(q[1]).sum(-1).softmax(0)[..., None]
    torch.testing.assert_close(found[1], weights[0] * v[0] + weights[1] * v[1])
