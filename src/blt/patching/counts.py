"""How unsure plain byte counts are of the next byte: no network, and no FLOPs in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from blt.patching.tables import lookup_key
from blt.vocab import OFFSET, VOCAB_SIZE

BYTES = 256  # that may come next
ROWS = 8192  # contexts whose distributions are worked on at once: 8 MB


class _Counts(NamedTuple):
    """What came after the contexts of n ids that occur, in the order of their keys."""

    contexts: Tensor  # [C] int64 keys
    of_pair: Tensor  # [K] int64 which context a pair (context, next byte) has, rising
    next_bytes: Tensor  # [K] int64
    counts: Tensor  # [K] float32


def count_entropies(documents: Sequence[Tensor], order: int) -> Tensor:
    """Entropy of the next byte after each context, in nats  # [260 ** order] float32, on the CPU.

    The estimate is Witten and Bell's: what followed the last n bytes c times, in T different ways,
    has a share of c / (c + T), and the estimate after the last n - 1 bytes the rest; without a text
    every byte is as likely. A context that does not occur has the entropy of its last n - 1 bytes.

    Args:
        documents: ids [T] each: BOS, then bytes.
        order: n, in bytes.
    """
    chances = torch.full((1, BYTES), 1 / BYTES, dtype=torch.float32, device="cpu")
    entropies = _entropy(chances)
    for n in range(order + 1):
        counted = _count(documents, n)
        more = VOCAB_SIZE**n // len(entropies)
        entropies = entropies.repeat(more)
        mixed = chances.repeat(more, 1) if n < order else None  # nothing is above the last
        for first in range(0, len(counted.contexts), ROWS):
            contexts = counted.contexts[first : first + ROWS]
            rows = _interpolated(counted, first, chances[contexts % len(chances)])
            entropies[contexts] = _entropy(rows)
            if mixed is not None:
                mixed[contexts] = rows
        chances = chances if mixed is None else mixed
    return entropies


def _count(documents: Sequence[Tensor], n: int) -> _Counts:
    none = torch.empty(0, dtype=torch.int64, device="cpu")
    pairs = [
        lookup_key(ids[:-1], n) * BYTES + ids[1:] - OFFSET for ids in documents if len(ids) > 1
    ]
    kinds, counts = torch.unique(torch.cat((none, *pairs)), return_counts=True)
    contexts, of_pair = torch.unique_consecutive(kinds // BYTES, return_inverse=True)
    return _Counts(contexts, of_pair, kinds % BYTES, counts.float())


def _interpolated(counted: _Counts, first: int, lower: Tensor) -> Tensor:
    """Chances of each next byte after some contexts, from the ``first`` on  # [R, 256].

    ``lower`` [R, 256] is the estimate after one byte less.
    """
    ends = torch.tensor([first, first + len(lower)], dtype=torch.int64, device="cpu")
    start, end = torch.searchsorted(counted.of_pair, ends).tolist()
    row, counts = counted.of_pair[start:end] - first, counted.counts[start:end]
    seen = torch.zeros_like(lower)
    seen[row, counted.next_bytes[start:end]] = counts
    kinds = (seen > 0).sum(1, keepdim=True)  # [R, 1] in how many ways the contexts went on
    return (seen + kinds * lower) / (seen.sum(1, keepdim=True) + kinds)


def _entropy(chances: Tensor) -> Tensor:
    """Nats of each row  # [R]."""
    return torch.special.entr(chances).sum(1)
