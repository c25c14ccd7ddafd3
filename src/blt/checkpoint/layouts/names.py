"""Which tensors of another layout hold the rows of which of ours: read in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Literal

from blt.files.tensors import Piece
from blt.model.config import Block

Layout = Literal["blt", "transformers", "meta"]
Mapped = dict[str, tuple[str, ...]]  # ours → theirs whose rows it holds, one below the other
STACKED = re.compile(r"(\w+)\.(transformer\.layers|cross_attention)\.(\d+)\.(.+)")
STACKS = {"transformer.layers": "layers", "cross_attention": "cross_attn_layers"}
# How many rows of a tensor of ours come from each of theirs, relative to each other; of tensors
# that are not named: equally many.
Shares = Mapping[str, Sequence[int]]
EQUAL: Shares = MappingProxyType({})
TABLE = "encoder.embedding.ngram"


@dataclass(frozen=True)
class Names:
    """What a layout calls our tensors."""

    modules: Mapping[str, str]  # encoder, decoder, global_transformer, entropy_model
    layer: Mapping[str, tuple[str, ...]]  # within a layer of a transformer
    cross_attention: Mapping[str, tuple[str, ...]]  # within a cross-attention
    others: Mapping[str, str]
    table: str  # the hash tables; with {}: one tensor for each

    def mapping(self, ours: Iterable[str], tables: int) -> Mapped:
        """Our names → theirs; ``tables`` is the number of hash tables."""
        return {name: self._theirs(name, tables) for name in ours}

    def _theirs(self, name: str, tables: int) -> tuple[str, ...]:
        if name == TABLE:
            count = tables if "{}" in self.table else 1
            return tuple(self.table.format(index) for index in range(count))
        stacked = STACKED.fullmatch(name)
        if stacked is None:
            return (self.others[name],)
        module, stack, index, leaf = stacked.groups()
        leaves = self.layer if stack == "transformer.layers" else self.cross_attention
        return tuple(f"{self.modules[module]}.{STACKS[stack]}.{index}.{x}" for x in leaves[leaf])


def from_theirs(mapped: Mapped, shares: Shares = EQUAL) -> dict[str, tuple[Piece, ...]]:
    """How our tensors are made of theirs."""
    return {
        ours: tuple(
            Piece(name, 0, many, many)
            for name, many in zip(theirs, _share(ours, theirs, shares), strict=True)
        )
        for ours, theirs in mapped.items()
    }


def to_theirs(mapped: Mapped, shares: Shares = EQUAL) -> dict[str, tuple[Piece, ...]]:
    """How their tensors are made of ours."""
    pieces: dict[str, tuple[Piece, ...]] = {}
    for ours, theirs in mapped.items():
        own = _share(ours, theirs, shares)
        firsts = accumulate(own, initial=0)
        for name, first, many in zip(theirs, firsts, own, strict=False):
            pieces[name] = (Piece(ours, first, sum(own), many),)
    return pieces


def qkv_shares(transformer: str, layers: int, heads: int, block: Block) -> Shares:
    """Of queries, keys and values in the layers of a transformer of this name: a head each."""
    shared = block.key_value_heads(heads)
    names = (f"{transformer}.layers.{index}.attention.qkv" for index in range(layers))
    return {name + end: (heads, shared, shared) for name in names for end in (".weight", "_bias")}


def _share(ours: str, theirs: Sequence[str], shares: Shares) -> Sequence[int]:
    return shares.get(ours, [1] * len(theirs))
