"""Texts as vectors: states of patches, bytes or tokens, pooled into one vector per text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.errors import UserError
from blt.model.blt import ByteLatentTransformer
from blt.model.layers import Transformer
from blt.model.packing import Laid, PackedBatch
from blt.model.transformer import CausalTransformer
from blt.scoring.states import decoder_states, read_layers, read_patches
from blt.texts.pieces import groups

Level = Literal["patch", "byte", "token"]
Pool = Literal["mean", "max", "last"]
TOGETHER = 32768  # ids that are read together; a longer text alone
Model = ByteLatentTransformer | CausalTransformer
POOLS: dict[str, Callable[[Tensor], Tensor]] = {  # rows of a text [R, D] → [D]
    "mean": lambda rows: rows.mean(0),
    "max": lambda rows: rows.amax(0),
    "last": lambda rows: rows[-1],
}


def own_level(model: Any) -> Level:
    """What a model works on: patches, bytes or tokens."""
    own: dict[str, Level] = {"blt": "patch", "byte": "byte", "token": "token"}
    return own[model.kind]


def check(model: Any, level: str, pool: str | None, layer: int | None) -> None:
    """Refuse what a model cannot give.

    Raises:
        UserError: names the level, pool or layer, and what there is.
    """
    levels = ("patch", "byte") if model.kind == "blt" else (own_level(model),)
    if level not in levels:
        raise UserError(f"level {level!r}: a {model.kind} model has {' and '.join(levels)}")
    if pool is not None and pool not in POOLS:
        raise UserError(f"pool {pool!r}: choose {', '.join(POOLS)}, or None for every row")
    depth = layers_of(model, level).depth
    if layer is not None and not 0 <= layer <= depth:
        raise UserError(f"layer {layer}: there are 0 (what the first one reads) to {depth}")


def layers_of(model: Any, level: str) -> Transformer:
    """The layers whose states are taken at a level: of bytes in a BLT those of the decoder."""
    if isinstance(model, CausalTransformer):
        return model.transformer
    return (model.global_transformer if level == "patch" else model.decoder).transformer


@torch.no_grad()
def rows_of(model: Model, batch: PackedBatch | Laid, level: str, layer: int) -> tuple[Tensor, ...]:
    """States of the patches, bytes or tokens of each document, its BOS first  # [R, D] each."""
    kept = _Kept(layer)
    if isinstance(model, CausalTransformer):
        read_layers(model, batch, kept)
        return batch.documents.split(kept.found)
    read = read_patches(model, batch, on_global=kept if level == "patch" else None)
    if level == "patch":
        return read.batch.patches.split(kept.found)
    decoder_states(model, read, kept)
    return read.batch.documents.split(kept.found)


def vectors(rows: Sequence[Tensor], pool: Pool, normalize: bool) -> Tensor:
    """Rows of texts, [R, D] each, BOS first → a vector of each  # [texts, D] float32.

    BOS counts only for a text that has nothing else.
    """
    found = torch.stack([POOLS[pool](part[1:] if len(part) > 1 else part) for part in rows])
    return F.normalize(found, dim=-1) if normalize else found


def embed(
    lm: Any,
    texts: Sequence[bytes],
    *,
    level: Level | None = None,
    pool: Pool | None = "mean",
    layer: int | None = None,
    normalize: bool = False,
) -> Tensor | list[Tensor]:
    """See :meth:`blt.LanguageModel.embed`; a list of texts."""
    level = own_level(lm) if level is None else level
    check(lm, level, pool, layer)
    layer = layers_of(lm, level).depth // 2 if layer is None else layer
    documents = [lm.ids_of(text) for text in texts]
    found: list[Tensor] = []
    for group in groups([len(ids) for ids in documents], TOGETHER):
        rows = rows_of(lm, lm.lay_out([documents[index] for index in group]), level, layer)
        floats = [part.float() for part in rows]
        if pool is not None:
            found.append(vectors(floats, pool, normalize))
        else:
            parts = [part[1:] for part in floats]
            found += [F.normalize(part, dim=-1) if normalize else part.clone() for part in parts]
    if pool is None:
        return found
    none = torch.empty(0, width(lm, level), dtype=torch.float32, device=lm.device)
    return torch.cat([none, *found])


def width(model: Any, level: str) -> int:
    """Features of a vector."""
    return layers_of(model, level).dim


class _Kept:
    """Keeps one layer's states, of all that it is called with."""

    found: Tensor

    def __init__(self, layer: int) -> None:
        self.layer, self.seen = layer, 0

    def __call__(self, states: Tensor) -> None:
        if self.seen == self.layer:
            self.found = states
        self.seen += 1
