"""Noise is what the paper says, in the shares that it says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.evals.noise import HELD_OUT, PAPER, disturb

# Letters without special cases: İ, ß and others change their length with their case.
plain = st.text(st.characters(codec="ascii"), max_size=60)


@given(plain)
def test_ant_speak_and_upper_case(text: str) -> None:
    data = text.encode()
    assert disturb(data, "UpperCase") == text.upper().encode()
    spoken = disturb(data, "AntSpeak").decode()
    assert spoken[::2] == text.upper()
    assert set(spoken[1::2]) <= {" "}


@given(plain, st.integers(0, 1000))
def test_random_case_changes_nothing_but_case(text: str, seed: int) -> None:
    assert disturb(text.encode(), "RandomCase", seed).decode().lower() == text.lower()


@given(st.text(st.characters(codec="ascii"), max_size=60).map("".join), st.integers(0, 1000))
def test_drop_leaves_out_and_repeat_adds_and_the_order_stays(text: str, seed: int) -> None:
    left = iter(text)
    assert all(c in left for c in disturb(text.encode(), "Drop", seed).decode())  # a subsequence
    longer = iter(disturb(text.encode(), "Repeat", seed).decode())
    assert all(c in longer for c in text)


@given(st.binary(max_size=80), st.sampled_from(sorted({**PAPER, **HELD_OUT})), st.integers(0, 1000))
def test_any_bytes_can_be_disturbed_and_the_seed_decides(
    data: bytes, noise: str, seed: int
) -> None:
    assert disturb(data, noise, seed) == disturb(data, noise, seed)
    if noise != "AntSpeak":  # which puts spaces between the bytes of what is no UTF-8
        invalid = [b for b in data if b == 0xFF]
        found = [b for b in disturb(data, noise, seed) if b == 0xFF]
        assert bool(found) <= bool(invalid)


def test_shares_are_the_papers() -> None:
    text = "".join(random.Random(0).choices("abcdefghij", k=100_000))
    data = text.encode()
    assert len(disturb(data, "Drop")) / len(data) == pytest.approx(0.9, abs=0.005)
    cased = disturb(data, "RandomCase").decode()
    assert sum(c.isupper() for c in cased) / len(cased) == pytest.approx(0.5, abs=0.01)
    lines = "\n".join(text[:50_000]).encode()  # runs of one letter, told apart by newlines
    runs = [len(run) for run in disturb(lines, "Repeat").split(b"\n") if run]
    shares = {n: runs.count(n) / len(runs) for n in set(runs)}
    assert set(shares) == {1, 2, 3, 4}
    assert shares[1] == pytest.approx(0.8, abs=0.01)
    for times in (2, 3, 4):
        assert shares[times] == pytest.approx(0.2 / 3, abs=0.01)
