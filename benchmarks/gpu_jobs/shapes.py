"""The shapes that are measured, by name, and models of random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

import blt
from benchmarks import shape
from benchmarks.gpu_jobs.place import Place
from blt.model.config import ByteTransformerConfig, Config, TokenTransformerConfig
from blt.model.transformer import CausalTransformer

TOKENS = 128_000  # of a vocabulary as Llama 3's, to which the paper compares
TOKEN_SIZE = shape.MEAN_PATCH_SIZE  # bytes


def blt_shape(name: str, place: Place) -> Config:
    """ "1b", "400m" or "small"; a tiny shape instead of each of them in a smoke test."""
    if place.smoke:
        return shape.TINY
    return shape.CONFIG if name == "small" else shape.paper(f"blt-{name}")


def entropy_shape(place: Place) -> ByteTransformerConfig:
    """The entropy model of the paper's BLTs, of 100M parameters."""
    config = blt_shape("1b", place).entropy_model
    assert config is not None
    return config


def token_shape(place: Place) -> TokenTransformerConfig:
    """A transformer over tokens as large as the 1B's global transformer."""
    c = blt_shape("1b", place)
    return TokenTransformerConfig(
        vocab_size=place.sized(TOKENS, 400),
        dim=c.global_dim,
        heads=c.global_heads,
        layers=c.global_layers,
        ff_dim=c.global_ff_dim,
        rope_theta=c.rope_theta,
    )


def spaced(config: Config, device: torch.device) -> blt.BLT:
    """A BLT without an entropy model: patches at spaces, if they are not given."""
    torch.manual_seed(0)
    patching = blt.PatchingConfig(rule="space")
    with device:
        return blt.BLT(replace(config, entropy_model=None, patching=patching))


def over_tokens(config: TokenTransformerConfig, device: torch.device) -> CausalTransformer:
    torch.manual_seed(0)
    with device:
        return CausalTransformer(config)


def over_bytes(config: ByteTransformerConfig, device: torch.device) -> blt.ByteLM:
    torch.manual_seed(0)
    with device:
        return blt.ByteLM(config)


def of_transformers(config: Config, device: torch.device) -> Any:
    """Made on the device itself: drawing three billion weights on a CPU takes 90 seconds."""
    with device:
        return shape.transformers_model(config)
