"""Models whose layers have every option of a block."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

import blt
from blt.model.config import Block
from shapes import tiny_config

QWEN2 = Block(kv_heads=2, qkv_bias=True)
QWEN3 = Block(kv_heads=1, head_dim=12, qk_norm="head")
OLMO2 = Block(qk_norm="all", norm="after")
Model = TypeVar("Model", bound=nn.Module)
# All that no family has together.
MIXED = Block(kv_heads=2, head_dim=20, qkv_bias=True, qk_norm="all", norm="after")
BLOCKS = {"llama": Block(kv_heads=2), "qwen2": QWEN2, "qwen3": QWEN3, "olmo2": OLMO2, "mix": MIXED}


def block_blt(block: Block, **changes: object) -> blt.BLT:
    """Random weights, biases and norms among them, and patches of real sizes."""
    torch.manual_seed(0)
    shape = {"global_heads": 4, "global_block": block, **changes}
    return randomised(blt.BLT(tiny_config(**shape)).eval())


def randomised(model: Model) -> Model:
    """Biases and norms' weights that are not 0 and 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.5)
    return model
