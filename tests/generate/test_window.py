"""A cached step sees the bytes of its window, all of them and no other, wherever a ring wraps."""

from __future__ import annotations

import pytest
import torch

import blt
from blt import encode
from blt.generate import cpp
from blt.generate.caches.rings import MAX_ROWS
from blt.generate.incremental_blt import cached
from blt.generate.weights import packed
from texts import MULTILINGUAL

WINDOW = 5
AROUND = 2 * (WINDOW + MAX_ROWS)  # bytes with which a ring has wrapped around
WAYS = [False, pytest.param(True, marks=pytest.mark.skipif(not cpp.library(), reason="no C++"))]


@pytest.fixture(scope="module")
def lm() -> blt.ByteLM:
    """One layer, so that a logit depends on its window and nothing else; sharp enough to tell."""
    torch.manual_seed(0)
    shape = blt.ByteTransformerConfig(dim=16, heads=2, layers=1, ff_dim=32, sliding_window=WINDOW)
    return blt.ByteLM(shape).eval()


def last_logits(lm: blt.ByteLM, ids: list[int], prompt: int, in_cpp: bool) -> torch.Tensor:
    """After the last of ids, of which ``prompt`` are read at once and the others one by one."""
    model = cached(packed(lm, "float32", native=in_cpp), 1)
    model.read([ids[:prompt]])
    for token_id in ids[prompt:]:
        logits = model.extend([[token_id]])
        model.commit([1])
    return logits[0, 0]


@pytest.mark.parametrize("in_cpp", WAYS)
@pytest.mark.parametrize("prompt", [1, AROUND - 10])
def test_a_cached_step_sees_exactly_its_window(lm: blt.ByteLM, prompt: int, in_cpp: bool) -> None:
    ids = encode(MULTILINGUAL).tolist()[:AROUND]
    expected = last_logits(lm, ids, prompt, in_cpp)
    for back in range(WINDOW + 2):
        other = list(ids)
        other[-1 - back] ^= 1
        same = torch.equal(last_logits(lm, other, prompt, in_cpp), expected)
        assert same == (back >= WINDOW), f"{back} bytes before the last"


@pytest.mark.parametrize("in_cpp", WAYS)
@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("prompt", [1, AROUND])
def test_steps_around_a_ring_have_the_logits_of_a_full_forward(
    lm: blt.ByteLM, prompt: int, together: int, in_cpp: bool
) -> None:
    ids = encode(MULTILINGUAL)[: prompt + 2 * AROUND]
    expected = lm.logits(ids)
    model = cached(packed(lm, "float32", native=in_cpp), 1)
    model.read([ids[:prompt].tolist()])
    for at in range(prompt, len(ids), together):
        new = ids[at : at + together].tolist()
        logits = model.extend([new])[0]
        model.commit([len(new)])
        torch.testing.assert_close(logits, expected[at : at + together], rtol=0, atol=1e-4)
