"""A seeded order of any number of things that takes no memory."""

from __future__ import annotations

import hashlib

ROUNDS = 4
MASK = 2**64 - 1


class Permutation:
    """Puts 0..count-1 in an order that depends on ``key`` alone: a Feistel network.

    The network permutes a power of four at least as large; what falls outside goes round again.

    Args:
        count: how many; at least 1.
        key: numbers that the order depends on, such as a seed and an epoch.
    """

    def __init__(self, count: int, *key: int) -> None:
        self.count = count
        self._half = max(1, ((count - 1).bit_length() + 1) // 2)  # bits
        digest = hashlib.sha256(",".join(map(str, key)).encode()).digest()
        self._keys = [int.from_bytes(digest[8 * i : 8 * i + 8]) for i in range(ROUNDS)]

    def __getitem__(self, place: int) -> int:
        """What comes at ``place``."""
        item = self._shuffled(place)
        while item >= self.count:
            item = self._shuffled(item)
        return item

    def _shuffled(self, x: int) -> int:
        mask = (1 << self._half) - 1
        left, right = x >> self._half, x & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return left << self._half | right


def _mixed(x: int) -> int:
    """A number whose bits all depend on all bits of x (the finaliser of SplitMix64)."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31
