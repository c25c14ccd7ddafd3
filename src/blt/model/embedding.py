"""Byte embedding plus hash n-gram embeddings (paper §3.2.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model import kernels
from blt.model.config import ByteTransformerConfig, TokenTransformerConfig, gated_features
from blt.model.kernels import RowGroups
from blt.model.layers import init_linear
from blt.model.ngrams import Trail, as_bytes, bytes_back, previous_rows, suffixes, without_case
from blt.vocab import OFFSET, VOCAB_SIZE

LETTERS = 27
FIRST_LETTER = ord("a") - 1 + OFFSET
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


def rows_of_letters(size: int, rows: int, prime: int = PRIMES[0]) -> int:
    """How many rows of a table the n-grams of the letters a to z and the id before them fall on."""
    letters = torch.arange(LETTERS, dtype=torch.int64, device="cpu") + FIRST_LETTER
    hashes = letters
    for _ in range(size - 1):
        hashes = (hashes[:, None] * prime + letters).flatten()
    return len((hashes % rows).unique())


def crowded(sizes: Sequence[int], functions: int, rows: int) -> int | None:
    """A size of n-grams that uses less than half of the rows which chance would; None: all do.

    The hash multiplies by a prime, of which only the rest modulo ``rows`` counts: 7 for 100000.
    """
    for size in sorted(size for size in sizes if size <= 4):  # longer ones fill a table sooner
        chance = rows * -math.expm1(-(LETTERS**size) / rows)
        if any(2 * rows_of_letters(size, rows, p) < chance for p in PRIMES[:functions]):
            return size
    return None


class NgramTables(nn.Module):
    """Tables of hash n-grams: rows of all that end in an id are added up.

    Args:
        dim: features of what the rows are added to.
        sizes: of n-grams, in ids.
        functions: hash functions.
        rows: of the table of one size and function.
        fold: what hashes do not see; see :class:`blt.Config`.
        gated: features e of a row where they are not added to an embedding, but go beside it, for a
            gate; None: they are added, and have d.
    """

    ngram: nn.Parameter  # [functions * len(sizes) * rows, d or e]

    def __init__(
        self,
        dim: int,
        sizes: Sequence[int],
        functions: int,
        rows: int,
        fold: Sequence[str] = (),
        gated: int | None = None,
    ) -> None:
        super().__init__()
        self.sizes, self.functions, self.rows = tuple(sizes), functions, rows
        self.fold, self.gated = tuple(fold), gated
        self.reach = max(sizes, default=1)  # ids that an n-gram is made of
        self.sparse_gradients = False  # a training loop with a row-wise optimiser turns it on
        self._first(dim)
        width = dim if gated is None else gated
        self.ngram = nn.Parameter(
            torch.empty(rows * functions * len(sizes), width, dtype=torch.float32)
        )
        init_linear(self.ngram, width)

    def _first(self, dim: int) -> None:
        """Parameters that come before the tables."""

    def back(self, ids: Tensor, positions: Tensor) -> list[Tensor]:
        """The ids that each row's n-grams are made of, newest first  # [N] each.

        Args:
            ids: [N] of whole documents, flat and packed.
            positions: [N] index from each document's start.
        """
        if "repeats" not in self.fold:
            return looking_back(self.seen(ids), positions, self.reach)
        rows = torch.arange(len(ids), dtype=torch.int64, device=ids.device)
        return self.back_from(self.trail(ids, previous_rows(positions)), rows)

    def trail(self, ids: Tensor, previous: Tensor) -> Trail:
        """For :meth:`back_from`; arguments as of :class:`blt.model.ngrams.Trail`."""
        ids = self.seen(ids)
        if "repeats" not in self.fold:
            return Trail(ids, previous)
        before = torch.cat((ids, ids.new_zeros(1)))[previous]
        return Trail(ids, previous, ids == before)

    def back_from(self, trail: Trail, rows: Tensor) -> list[Tensor]:
        """As :meth:`back`, for some rows [n] of documents that need not lie end to end."""
        return trail.back(rows, self.reach)

    def seen(self, ids: Tensor) -> Tensor:
        """Ids as hashes see them  # [N]."""
        return without_case(ids) if "case" in self.fold else ids

    def sum(self, back: list[Tensor], groups: RowGroups | None = None) -> Tensor:
        """What :meth:`back` gave → the sum of the rows of each id's n-grams  # [N, d or e]."""
        rows = ngram_rows(back, self.sizes, self.functions, self.rows)
        return kernels.sum_of_rows(self.ngram, rows, self.sparse_gradients, groups)

    def joined(self, x: Tensor, rows: Tensor) -> Tensor:
        """Embeddings [N, d] with the sum of rows added; for a gate, beside it: [N, d + e]."""
        return x + rows if self.gated is None else torch.cat((x, rows), -1)

    @torch.no_grad()
    def groups(self, ids: Tensor, positions: Tensor) -> RowGroups | None:
        """What the sparse gradient of a batch [N] needs to know, ahead; None: there is none."""
        if not self.sizes or not self.sparse_gradients:
            return None
        back = self.back(ids, positions)
        return kernels.group_rows(ngram_rows(back, self.sizes, self.functions, self.rows))


class ByteEmbedding(NgramTables):
    """Sum of a byte's embedding and those of the n-grams that end in it."""

    def _first(self, dim: int) -> None:
        self.byte = nn.Parameter(torch.empty(VOCAB_SIZE, dim, dtype=torch.float32))
        init_linear(self.byte, dim)

    def forward(
        self, ids: Tensor, positions: Tensor, groups: RowGroups | None = None
    ) -> Tensor:  # [N], [N] -> [N, d]
        return self.read(ids, self.back(ids, positions) if self.sizes else [], groups)

    def read(self, ids: Tensor, back: list[Tensor], groups: RowGroups | None = None) -> Tensor:
        """Ids of bytes, and what :meth:`back` gives for them → [N, d]."""
        x = F.embedding(ids, self.byte)
        return self.joined(x, self.sum(back, groups)) if self.sizes else x


class NgramEmbedding(NgramTables):
    """What is added to the embeddings of bytes, in a transformer without patches."""

    def forward(self, back: list[Tensor], groups: RowGroups | None = None) -> Tensor:
        return self.sum(back, groups)


class TokenNgrams(NgramEmbedding):
    """The same for tokens, whose n-grams are of tokens."""

    def __init__(self, num_ids: int, *how: Any) -> None:
        super().__init__(*how)
        self.num_ids = num_ids

    def seen(self, ids: Tensor) -> Tensor:
        return as_bytes(ids, self.num_ids)


class TokenByteNgrams(NgramEmbedding):
    """The same for tokens, whose n-grams are of the bytes of text that end with them."""

    suffixes: Tensor  # [V + 1, max(2, reach)] of blt.model.ngrams; it belongs to a tokenizer

    def __init__(self, num_ids: int, *how: Any) -> None:
        super().__init__(*how)
        self.num_ids = num_ids
        self.spell(())

    def spell(self, written: Sequence[bytes]) -> None:
        """Take the bytes of each token, where the tables are."""
        table = suffixes(written, self.num_ids, self.reach, self.fold)
        # Not saved: the tokenizer is.
        self.register_buffer("suffixes", table.to(self.ngram.device), persistent=False)

    def back(self, ids: Tensor, positions: Tensor) -> list[Tensor]:
        rows = torch.arange(len(ids), dtype=torch.int64, device=ids.device)
        return self.back_from(self.trail(ids, previous_rows(positions)), rows)

    def trail(self, ids: Tensor, previous: Tensor) -> Trail:
        if "repeats" not in self.fold:
            return Trail(ids, previous, outside=self.num_ids)
        own = self.suffixes.to(ids.device)[ids]
        newest = torch.cat((own[:, 0], own.new_zeros(1)))[previous]
        # A token is left out whole if it only repeats the byte before it.
        return Trail(ids, previous, (own[:, 1] == 0) & (own[:, 0] == newest), self.num_ids)

    def back_from(self, trail: Trail, rows: Tensor) -> list[Tensor]:
        tokens = trail.back(rows, self.reach)
        table = self.suffixes.to(rows.device)
        return list(bytes_back(tokens, table, self.reach, "repeats" in self.fold).unbind(1))


def ngrams_of(config: ByteTransformerConfig | TokenTransformerConfig) -> NgramEmbedding | None:
    """The tables of a transformer without patches; None: it has none."""
    c = config
    sizes, gated = c.hash_ngram_sizes, gated_features(c, c.dim)
    how = (c.dim, sizes, c.hash_functions, c.hash_rows, c.hash_fold, gated)
    if not sizes:
        return None
    if isinstance(c, ByteTransformerConfig):
        return NgramEmbedding(*how)
    return (TokenNgrams if c.hash_of == "tokens" else TokenByteNgrams)(c.num_ids, *how)
