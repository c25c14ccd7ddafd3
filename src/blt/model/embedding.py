"""Byte embedding plus hash n-gram embeddings (paper §3.2.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model import kernels
from blt.model.kernels import RowGroups
from blt.model.layers import init_linear
from blt.vocab import VOCAB_SIZE

PRIMES = (
    1000000007,
    5915587277,
    1500450271,
    3267000013,
    5754853343,
    4093082899,
    9576890767,
    3628273133,
    2860486313,
    5463458053,
    3367900313,
)


def looking_back(ids: Tensor, positions: Tensor, reach: int) -> list[Tensor]:
    """``back[j][t]`` is the id at t - j, or 0 before the document, for j < reach  # [N] each.

    Args:
        ids: [N] flat packed ids.
        positions: [N] index from each document's start.
        reach: how many ids, the byte's own among them.
    """
    back = [ids]
    for j in range(1, reach):
        shifted = torch.cat((ids.new_zeros(min(j, len(ids))), ids[: len(ids) - j]))[: len(ids)]
        back.append(torch.where(positions >= j, shifted, 0))
    return back


def ngram_rows(back: list[Tensor], sizes: tuple[int, ...], functions: int, rows: int) -> Tensor:
    """Rows of the fused hash table that each byte's n-grams fall into.

    ``h = Σ_j id[t-n+1+j]·a^j`` in wrapping int64; ids before the document's start count as 0.

    Args:
        back: from :func:`looking_back`, as far as the largest size reaches.
        sizes: n-gram sizes in bytes.
        functions: number of hash functions; table of function f and size s starts at
            ``(f * len(sizes) + index of s) * rows``.
        rows: rows of one table.

    Returns:
        [N, functions * len(sizes)] int64
    """
    hashes: list[Tensor] = []
    for prime in PRIMES[:functions]:
        by_size = [back[0]]  # each n-gram's hash is made of that of the n-gram within it
        for older in back[1:]:
            by_size.append(by_size[-1] * prime + older)
        hashes += [by_size[n - 1] for n in sizes]
    first_rows = torch.arange(len(hashes), dtype=torch.int64, device=back[0].device) * rows
    return torch.stack(hashes, dim=1).remainder_(rows).add_(first_rows)


class ByteEmbedding(nn.Module):
    """Sum of a byte's embedding and those of the n-grams that end in it."""

    def __init__(self, dim: int, sizes: tuple[int, ...], functions: int, rows: int) -> None:
        super().__init__()
        self.sizes, self.functions, self.rows = sizes, functions, rows
        self.reach = max(sizes, default=1)  # ids that a byte's n-grams are made of
        self.byte = nn.Parameter(torch.empty(VOCAB_SIZE, dim, dtype=torch.float32))
        self.ngram = nn.Parameter(
            torch.empty(rows * functions * len(sizes), dim, dtype=torch.float32)
        )
        self.sparse_gradients = False  # a training loop with a row-wise optimiser turns it on
        init_linear(self.byte, dim)
        init_linear(self.ngram, dim)

    def forward(
        self, ids: Tensor, positions: Tensor, groups: RowGroups | None = None
    ) -> Tensor:  # [N], [N] -> [N, d]
        return self.read(looking_back(ids, positions, self.reach), groups)

    def read(self, back: list[Tensor], groups: RowGroups | None = None) -> Tensor:
        """Ids of bytes and of those before them, from :func:`looking_back` → [N, d]."""
        x = F.embedding(back[0], self.byte)
        if not self.sizes:
            return x
        rows = ngram_rows(back, self.sizes, self.functions, self.rows)
        return x + kernels.sum_of_rows(self.ngram, rows, self.sparse_gradients, groups)

    @torch.no_grad()
    def groups(self, ids: Tensor, positions: Tensor) -> RowGroups | None:
        """What the sparse gradient of a batch [N] needs to know, ahead; None: there is none."""
        if not self.sizes or not self.sparse_gradients:
            return None
        back = looking_back(ids, positions, self.reach)
        return kernels.group_rows(ngram_rows(back, self.sizes, self.functions, self.rows))
