"""Tokens that are split at random, so that a model learns what they are made of.

As StochasTok (arXiv 2506.01687) does it, but every token is drawn once: halves are not split again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property

from blt.errors import require
from blt.tokens.tokenizer import ByteTokenizer


class SplittingTokenizer(ByteTokenizer):
    """A tokenizer that writes some tokens as two shorter ones: for training only.

    Args:
        of: whose vocabulary it has.
        share: chance of each token that can be split to be split, 0..1.
        seed: of what is split, and how.
    """

    def __init__(self, of: ByteTokenizer, share: float, seed: int = 0) -> None:
        require(0 <= share <= 1, f"the share of tokens to split must lie in 0..1, got {share}")
        self._share, self._chance = 0.0, random.Random(seed)  # nothing while it is checked
        super().__init__(of.json)
        self._share = share

    def encode(self, data: bytes) -> list[int]:
        """Token ids of any bytes, others each time."""
        ids = super().encode(data)
        return [part for i in ids for part in self._parts(i)] if self._share else ids

    def _parts(self, token: int) -> tuple[int, ...]:
        pairs = self.pairs.get(token)
        split = pairs and self._chance.random() < self._share
        return self._chance.choice(pairs) if pairs and split else (token,)

    @cached_property
    def pairs(self) -> dict[int, list[tuple[int, int]]]:
        """The ways to write a token as two others, for each that can be."""
        tokens = self.tokens()
        ids = {data: i for i, data in enumerate(tokens) if data}
        found = {i: list(_cuts(data, ids)) for data, i in ids.items()}
        return {i: pairs for i, pairs in found.items() if pairs}


def _cuts(data: bytes, ids: dict[bytes, int]) -> Iterator[tuple[int, int]]:
    for at in range(1, len(data)):
        left, right = ids.get(data[:at]), ids.get(data[at:])
        if left is not None and right is not None:
            yield left, right
