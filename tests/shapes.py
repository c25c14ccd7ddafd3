"""Model shapes small enough for tests."""

from __future__ import annotations

import torch

import blt
from blt.model.config import TokenTransformerConfig

TINY = blt.ByteTransformerConfig(dim=16, heads=2, layers=1, ff_dim=32, sliding_window=32)
TINY_BLT = blt.Config(
    local_dim=16,
    local_heads=2,
    encoder_ff_dim=32,
    decoder_layers=1,
    decoder_ff_dim=32,
    global_dim=32,
    global_heads=2,
    global_layers=1,
    global_ff_dim=64,
    hash_rows=100,
    entropy_model=TINY,
)
TOKEN_SHAPE = TokenTransformerConfig(vocab_size=300, dim=32, heads=2, layers=2, ff_dim=48)


def tiny_config(**changes: object) -> blt.Config:
    """A BLT whose entropies differ enough from byte to byte to cut real patches."""
    return blt.Config(
        **{
            "local_dim": 32,
            "local_heads": 2,
            "encoder_ff_dim": 48,
            "decoder_layers": 2,
            "decoder_ff_dim": 48,
            "sliding_window": 64,
            "global_dim": 64,
            "global_heads": 2,
            "global_layers": 2,
            "global_ff_dim": 96,
            "hash_rows": 211,
            "patching": blt.PatchingConfig(threshold=4.6),
            "entropy_model": blt.ByteTransformerConfig(
                dim=32, heads=2, layers=1, ff_dim=48, sliding_window=64
            ),
            **changes,
        }
    )


def random_blt(
    rule: str = "entropy", window: int = 64, threshold: float | None = None, **patching: object
) -> blt.BLT:
    """Random weights, the same at every call; entropies are spread enough to cut real patches."""
    config = blt.PatchingConfig(
        rule=rule,  # type: ignore[arg-type]
        threshold=(0.01 if rule == "entropy-monotonic" else 4.6)
        if threshold is None
        else threshold,
        **patching,  # type: ignore[arg-type]
    )
    torch.manual_seed(0)
    entropy_model = blt.ByteTransformerConfig(
        dim=32, heads=2, layers=1, ff_dim=48, sliding_window=window
    )
    model = blt.BLT(
        tiny_config(patching=config, sliding_window=window, entropy_model=entropy_model)
    ).eval()
    assert model.entropy_model is not None
    with torch.no_grad():
        model.entropy_model.head.weight *= 2
    if model.lookup_table is not None:
        model.lookup_table = torch.rand(len(model.lookup_table)) < 0.3
    return model
