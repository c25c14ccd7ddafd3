"""Counted random numbers: the same on the host and on a device, even, and apart for each seed."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt.generate.numbers import Numbers, key_of, number_at


@given(st.integers(0, 2**80), st.integers(1, 30))
def test_a_device_takes_the_numbers_of_the_host(seed: int, count: int) -> None:
    numbers = Numbers(seed)
    expected = [numbers.random() for _ in range(count)]
    keys = torch.full((count,), key_of(seed), dtype=torch.int64)
    assert number_at(keys, torch.arange(count)).tolist() == expected
    assert all(0 <= number < 1 for number in expected)


def test_numbers_are_even_and_those_of_neighbouring_seeds_have_nothing_in_common() -> None:
    keys = torch.tensor([key_of(seed) for seed in range(64)])
    numbers = number_at(keys[:, None], torch.arange(4096)[None]).numpy()
    assert len(np.unique(numbers)) == numbers.size
    counts, _ = np.histogram(numbers, bins=256, range=(0, 1))
    expected = numbers.size / 256
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert statistic < 255 + 5 * (2 * 255) ** 0.5  # five deviations
    correlated = np.corrcoef(numbers)[~np.eye(64, dtype=bool)]
    assert abs(correlated).max() < 6 / 4096**0.5
    following = np.corrcoef(numbers[:, 1:].ravel(), numbers[:, :-1].ravel())[0, 1]
    assert abs(following) < 6 / numbers.size**0.5


def test_seeds_that_differ_in_any_bit_have_other_keys() -> None:
    seeds = [0, 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1, 10**40]
    assert len({key_of(seed) for seed in seeds}) == len(seeds)
