"""The split depends on content alone, leaves no side empty, and loses no byte."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.data import split
from blt.errors import UserError

MANY = [f"document {n}\n".encode() * 20 for n in range(400)]


@given(st.randoms())
def test_order_and_other_documents_change_nothing(shuffle: random.Random) -> None:
    chosen = shuffle.sample(MANY, 350)
    whole, part = split(MANY), split(chosen)
    assert set(part.heldout) == set(whole.heldout) & set(chosen)
    assert set(part.train) == set(whole.train) & set(chosen)


def test_copies_stay_together_and_the_share_is_about_right() -> None:
    parts = split(MANY + MANY)
    assert not set(parts.train) & set(parts.heldout)
    assert 0.02 < len(parts.heldout) / len(MANY + MANY) < 0.1


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8))
def test_few_documents_give_both_sides_and_all_bytes(documents: list[bytes]) -> None:
    if max(map(len, documents)) < 2:
        documents.append(b"ab")
    parts = split(documents)
    assert parts.train and parts.heldout  # noqa: PT018
    assert all(parts.train) and all(parts.heldout)  # noqa: PT018
    assert sum(map(len, parts.train + parts.heldout)) == sum(map(len, documents))


def test_of_a_single_file_the_end_is_held_out_at_a_character() -> None:
    text = ("ü" * 1001).encode()
    parts = split([text], 0.05)
    assert parts.train[0] + parts.heldout[0] == text
    assert len(parts.heldout[0]) == pytest.approx(100, abs=2)
    parts.heldout[0].decode()


def test_one_byte_cannot_be_split() -> None:
    with pytest.raises(UserError, match="too few"):
        split([b"a"])
