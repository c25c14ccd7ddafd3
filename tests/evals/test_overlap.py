"""Text that occurs in both is found, and nothing else is."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.evals import overlap as module
from blt.evals.overlap import BLOCK, blocks, blocks_of, hold, overlap


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


@given(st.lists(st.binary(max_size=170), max_size=5), st.integers(0, 60))
def test_blocks_are_found_at_any_position(texts: list[bytes], before: int) -> None:
    wanted = blocks(texts)
    cut = {t[at : at + BLOCK] for t in texts for at in range(0, len(t) - BLOCK + 1, BLOCK)}
    assert len(wanted) == len(cut)
    padded = [units(b"\xff" * before + block) for block in cut]
    assert hold(padded, wanted) == [True] * len(cut)
    mixed = [units(b"\xfe" * 200), *padded, units(b"")]
    assert hold(mixed, wanted) == [b"\xfe" * BLOCK in cut, *[True] * len(cut), False]


@given(st.lists(st.text(max_size=120), max_size=4))
def test_units_may_be_wider_than_bytes(texts: list[str]) -> None:
    rows = [np.array([ord(c) for c in text], dtype=np.uint32) for text in texts]
    wanted = blocks_of(rows)
    assert hold(rows, wanted) == [len(text) >= BLOCK for text in texts]
    assert not any(hold([np.full(99, 0x110000, dtype=np.uint32)], wanted))


def units(text: bytes) -> np.ndarray:
    return np.frombuffer(text, dtype=np.uint8)
