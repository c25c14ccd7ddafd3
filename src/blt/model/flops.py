"""Floating-point operations per byte, counted as the paper counts them (§4.5, equations 13-17).

All counts are of one forward pass; a training step is :data:`TRAINING_FACTOR` times that. Embedding
and hash n-gram look-ups, norms, and the projections that only pool or resize patches cost nothing.
The paper leaves the entropy model out of its sum; here it is a term of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blt.model.config import (
    Block,
    ByteTransformerConfig,
    Config,
    TokenTransformerConfig,
    gated_features,
)

TRAINING_FACTOR = 3  # forward, plus backward at twice its cost
BYTE_VALUES = 256  # the output head as the paper counts it; our 4 special ids are left out

FeedForward = Literal["actual", "paper"]


def attention_flops(dim: int, layers: int, keys: float) -> float:
    """Scores and weighted sum of causal attention over ``keys`` keys, per query."""
    return 4 * layers * dim * (keys + 1) / 2


def transformer_flops(
    dim: int,
    layers: int,
    keys: float,
    vocab: int = 0,
    ff_dim: float | None = None,
    heads: tuple[int, int] | None = None,
) -> float:
    """FLOPs of a transformer per position (the paper's ``Transf``).

    Args:
        dim: width ``h``.
        layers: number of layers ``l``.
        keys: positions within reach of attention ``m``: the context, or the window.
        vocab: width of the output head ``V``; 0 for none.
        ff_dim: inner width of the SwiGLU feed-forward, which costs ``6·h·ff_dim`` per layer. None
            is the paper's ``2·2·h·4h``, which is what ``ff_dim = 8/3·h`` costs.
        heads: features of all heads of queries together, and of those of keys, which cost
            ``4·h`` per layer each with what belongs to them; None: ``h`` both.
    """
    ff_dim = 8 / 3 * dim if ff_dim is None else ff_dim
    queries, shared = (dim, dim) if heads is None else heads
    per_layer = 4 * dim * (queries + shared) + 6 * dim * ff_dim
    return attention_flops(queries, layers, keys) + layers * per_layer + 2 * dim * vocab


def head_widths(dim: int, heads: int, block: Block) -> tuple[int, int]:
    """Features of all heads of queries together, and of those of keys."""
    width = block.features(dim, heads)
    return heads * width, block.key_value_heads(heads) * width


def cross_attention_flops(dim: int, layers: int, keys: float, kv_per_query: float) -> float:
    """FLOPs of cross-attention per query (the paper's ``XAttn``).

    Args:
        dim: width of queries, keys and values.
        layers: how many cross-attention layers there are.
        keys: keys that one query sees.
        kv_per_query: keys to be projected per query ``r``.
    """
    projections = (2 * kv_per_query + 2) * 2 * layers * dim * dim
    return attention_flops(dim, layers, keys) + projections


def gate_flops(dim: int, rows: int | None) -> float:
    """FLOPs per position of the two products of a gate on hash n-grams (ours, not the paper's).

    Args:
        dim: width of what the rows are added to.
        rows: width of the rows; None: there is no gate.
    """
    return 0 if rows is None else 4 * dim * rows


@dataclass(frozen=True)
class FlopsPerByte:
    """FLOPs of one forward pass per byte of text, by part."""

    global_: float
    encoder: float
    decoder: float
    encoder_cross: float
    decoder_cross: float
    entropy_model: float = 0.0
    router: float = 0.0  # of the rule "learned"

    @property
    def total(self) -> float:
        """The paper's sum, without the entropy model, but with the router."""
        crosses = self.encoder_cross + self.decoder_cross
        return self.global_ + self.encoder + self.decoder + crosses + self.router

    @property
    def total_with_entropy_model(self) -> float:
        """What reading a byte costs when patches are not known beforehand."""
        return self.total + self.entropy_model

    @property
    def training(self) -> float:
        """Forward and backward, the entropy model left out (it is not trained along)."""
        return TRAINING_FACTOR * self.total


def byte_transformer_flops(
    shape: ByteTransformerConfig, context_bytes: int | None = None, ff: FeedForward = "actual"
) -> float:
    """Forward FLOPs per byte of an entropy model or of a baseline without patches."""
    keys = _window(shape.sliding_window, context_bytes)
    ff_dim = shape.ff_dim if ff == "actual" else None
    per_byte = transformer_flops(shape.dim, shape.layers, keys, BYTE_VALUES, ff_dim)
    return per_byte + gate_flops(shape.dim, gated_features(shape, shape.dim))


def token_transformer_flops(
    shape: TokenTransformerConfig, token_size: float, context_bytes: int
) -> float:
    """Forward FLOPs per byte of a transformer over tokens of ``token_size`` bytes on average."""
    keys = context_bytes / token_size
    per_token = transformer_flops(
        shape.dim,
        shape.layers,
        keys,
        shape.vocab_size,
        shape.ff_dim,
        head_widths(shape.dim, shape.heads, shape.block),
    )
    return (per_token + gate_flops(shape.dim, gated_features(shape, shape.dim))) / token_size


def flops_per_byte(
    config: Config, patch_size: float, context_bytes: int, ff: FeedForward = "actual"
) -> FlopsPerByte:
    """Forward FLOPs per byte of a Byte Latent Transformer.

    Args:
        config: a ``blt.Config``, or anything with those fields.
        patch_size: mean patch size in bytes.
        context_bytes: document length in bytes; the global transformer sees
            ``context_bytes / patch_size`` patches.
        ff: "actual" counts the config's feed-forward widths, for shares of a machine's peak.
            "paper" counts ``8/3`` of the width as the paper does, whatever the config says: its
            published numbers come from that. The released shapes round their widths up, which
            makes "actual" 0.5 % to 2 % higher.

    Raises:
        ValueError: a patch size below 1 byte, or a context shorter than a patch.
    """
    if not 1 <= patch_size <= context_bytes:
        raise ValueError(f"patch_size must be in 1..{context_bytes} bytes, got {patch_size}")
    actual = ff == "actual"
    dim, k = config.local_dim, config.cross_attention_k
    keys = _window(config.sliding_window, context_bytes)
    encoder_ff, decoder_ff, global_ff = (
        (config.encoder_ff_dim, config.decoder_ff_dim, config.global_ff_dim)
        if actual
        else [None] * 3
    )
    per_patch = transformer_flops(
        config.global_dim,
        config.global_layers,
        context_bytes / patch_size,
        ff_dim=global_ff,
        heads=head_widths(config.global_dim, config.global_heads, config.global_block),
    )
    entropy = config.entropy_model
    return FlopsPerByte(
        global_=per_patch / patch_size,
        encoder=transformer_flops(dim, config.encoder_layers, keys, ff_dim=encoder_ff)
        + gate_flops(dim, gated_features(config, dim)),
        decoder=transformer_flops(dim, config.decoder_layers, keys, BYTE_VALUES, decoder_ff),
        # k queries per patch read its bytes; each byte is one query that reads k slices.
        encoder_cross=cross_attention_flops(dim, config.encoder_crosses, patch_size, patch_size / k)
        * (k / patch_size),
        decoder_cross=cross_attention_flops(dim, config.decoder_crosses, k, k / patch_size),
        entropy_model=byte_transformer_flops(entropy, context_bytes, ff) if entropy else 0.0,
        router=4.0 * dim * dim if config.patching.is_learned else 0.0,  # W_q x and W_k x
    )


def _window(sliding_window: int, context_bytes: int | None) -> int:
    return sliding_window if context_bytes is None else min(sliding_window, context_bytes)
