"""A BLT whose global transformer begins as the layers of a token model (paper §5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from blt.checkpoint.folders import Checkpoint
from blt.errors import require
from blt.lm import BLT
from blt.model.config import Config, TokenTransformerConfig
from blt.model.cross_attention import PatchesFromBytes
from blt.model.layers import Linear

LAYERS = "global_transformer.transformer."  # what comes from the token model
BLOCK_ROWS = 65536  # of the token model's embeddings, read at once


def with_layers_of(config: Config, source: TokenTransformerConfig) -> Config:
    """``config`` with the source's layers and their shape; RoPE's θ and epsilon go to all parts,
    its scaling to the global transformer.

    Raises:
        UserError: layers that were trained with n-gram tables, which nothing here takes over.
    """
    require(
        not source.hash_ngram_sizes,
        "byteify: the source has hash n-gram tables (hash_ngram_sizes), which a BLT of patches "
        "cannot take over; name a token model without",
    )
    return replace(
        config,
        global_dim=source.dim,
        global_heads=source.heads,
        global_layers=source.layers,
        global_ff_dim=source.ff_dim,
        global_block=source.block,
        rope_theta=source.rope_theta,
        global_rope_scaling=source.rope_scaling,
        norm_eps=source.norm_eps,
    )


@torch.no_grad()
def take_layers(model: BLT, source: Checkpoint) -> None:
    """Give the global transformer the source's layers."""
    for name, parameter in model.global_transformer.transformer.state_dict().items():
        parameter.copy_(source.tensors.read(f"transformer.{name}"))


@torch.no_grad()
def scale_patches(model: BLT, source: Checkpoint, texts: Sequence[Tensor]) -> None:
    """Give patches the size of the source's embeddings.

    Norms take away the size of what a layer reads, but not how much of the sum it makes up.

    Args:
        texts: ids [T] each, which the size of patches is measured on.
    """
    packed = model.pack([ids.to(model.device) for ids in texts])
    _, patches = model.encoder(packed)
    size = root_mean_square(model.global_transformer.projection(patches))
    for weight in _outermost(model):
        weight.mul_(_embedding_size(source) / size)


@torch.no_grad()
def take_norm(model: BLT, source: Checkpoint, texts: Sequence[Tensor]) -> None:
    """Let the decoder read what the source's head read: weighted as by the norm before it, and of
    about the size that this gave.

    Args:
        texts: as of :func:`scale_patches`.
    """
    packed = model.pack([ids.to(model.device) for ids in texts])
    _, patches = model.encoder(packed)
    hidden = model.global_transformer(patches, packed.patches)
    norm = source.tensors.read("norm.weight").to(model.device)
    model.decoder.patch_projection.weight.mul_(norm / root_mean_square(hidden))


def _outermost(model: BLT) -> list[Tensor]:
    """Weights that the size of what the global transformer reads is proportional to."""
    projection = model.global_transformer.projection
    if isinstance(projection, Linear):
        return [projection.weight]
    last = model.encoder.cross_attention[-1:]
    crosses = [cross.out.weight for cross in last if isinstance(cross, PatchesFromBytes)]
    return [model.encoder.patch_projection.weight, *crosses]


def _embedding_size(source: Checkpoint) -> float:
    """Root mean square of the token model's embeddings."""
    rows = source.tensors.specs["embedding"].shape[0]
    squares = 0.0
    for start in range(0, rows, BLOCK_ROWS):
        block = source.tensors.rows("embedding", start, min(rows, start + BLOCK_ROWS))
        squares += float(block.double().square().mean(-1).sum())
    return (squares / rows) ** 0.5


def root_mean_square(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
