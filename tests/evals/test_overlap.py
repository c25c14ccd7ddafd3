"""Text that occurs in both is found, and nothing else is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.evals import overlap as module
from blt.evals.overlap import BLOCK, overlap


@given(st.integers(0, 300), st.integers(1, 8), st.integers(0, 1000))
def test_the_share_of_blocks_that_were_trained_on(before: int, copied: int, seed: int) -> None:
    chance = random.Random(seed)
    heldout = chance.randbytes(8 * BLOCK + chance.randrange(BLOCK))
    train = [chance.randbytes(before) + heldout[: copied * BLOCK] + chance.randbytes(30)]
    assert overlap(train, [heldout]) == copied / 8
    assert overlap([chance.randbytes(5000)], [heldout]) == 0
    assert overlap(train, [heldout[: BLOCK - 1]]) == 0  # no whole block


def test_long_documents_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 64)
    chance = random.Random(0)
    train = chance.randbytes(1000)
    assert all(overlap([train], [train[at : at + BLOCK]]) == 1 for at in range(0, 950, 7))
