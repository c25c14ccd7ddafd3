"""Random numbers that are counted: the n-th of a seed is the same on every device and in any batch.

The n-th number is a hash (splitmix64, Steele et al. 2014) of the seed and n, so a batch of texts
takes theirs at once, and a text's do not depend on who writes beside it.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31
WORD = 2**64
BITS = 53  # of a number, as many as a float64 has


class Chance(Protocol):
    """Where random numbers come from."""

    def random(self) -> float:
        """The next number, 0 <= x < 1."""
        ...


class Numbers:
    """The numbers of one seed, one after the other.

    Attributes:
        key: what the numbers are hashed from, besides their index; an int64.
        taken: how many have been taken.
    """

    def __init__(self, seed: int) -> None:
        self.key, self.taken = key_of(seed), 0

    def random(self) -> float:
        """The next number, 0 <= x < 1."""
        self.taken += 1
        return float((_mixed(self.key + self.taken * GOLDEN) >> (64 - BITS)) * 2.0**-BITS)


def key_of(seed: int) -> int:
    """What the numbers of a seed, any whole number >= 0, are hashed from; an int64."""
    key = 0
    while True:
        seed, word = divmod(seed, WORD)
        key = _mixed(key + word + GOLDEN)
        if not seed:
            return _signed(key)


def number_at(keys: Tensor, taken: Tensor) -> Tensor:
    """The number after ``taken`` others of each key, int64 [..] both  # [..] float64."""
    z = keys + (taken + 1) * _signed(GOLDEN)
    for shift, factor in MIXERS:
        z = (z ^ _shifted(z, shift)) * _signed(factor)
    z = z ^ _shifted(z, LAST_SHIFT)
    return _shifted(z, 64 - BITS).double() * 2.0**-BITS


def _mixed(z: int) -> int:
    z %= WORD
    for shift, factor in MIXERS:
        z = (z ^ (z >> shift)) * factor % WORD
    return z ^ (z >> LAST_SHIFT)


def _shifted(z: Tensor, by: int) -> Tensor:
    """Shifted to the right as an unsigned number."""
    return (z >> by) & (2 ** (64 - by) - 1)


def _signed(word: int) -> int:
    """The int64 with the bits of a number below 2**64."""
    return word - WORD if word >= WORD // 2 else word
