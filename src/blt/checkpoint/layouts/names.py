"""Which tensors of another layout hold the rows of which of ours: read in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from blt.files.tensors import Piece

Layout = Literal["blt", "transformers", "meta"]
Mapped = dict[str, tuple[str, ...]]  # ours → theirs whose rows it holds, one below the other
STACKED = re.compile(r"(\w+)\.(transformer\.layers|cross_attention)\.(\d+)\.(.+)")
STACKS = {"transformer.layers": "layers", "cross_attention": "cross_attn_layers"}
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


def from_theirs(mapped: Mapped) -> dict[str, tuple[Piece, ...]]:
    """How our tensors are made of theirs."""
    return {ours: tuple(map(Piece, theirs)) for ours, theirs in mapped.items()}


def to_theirs(mapped: Mapped) -> dict[str, tuple[Piece, ...]]:
    """How their tensors are made of ours."""
    return {
        name: (Piece(ours, part, len(theirs)),)
        for ours, theirs in mapped.items()
        for part, name in enumerate(theirs)
    }
