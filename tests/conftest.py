"""Small models that every test may share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

import blt

settings.register_profile(
    "default",
    deadline=None,  # nothing here depends on the clock
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


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


@pytest.fixture(scope="session")
def lm() -> blt.BLT:
    """Random weights; mean patch size between 1 and 4."""
    torch.manual_seed(0)
    model = blt.BLT(tiny_config()).eval()
    assert model.entropy_model is not None
    with torch.no_grad():
        model.entropy_model.head.weight *= 2
    return model
