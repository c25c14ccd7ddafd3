"""An adapter is added to the weights before they are rounded to another precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import blt
from blt.checkpoint import adapters
from blt.checkpoint.adapters import PREFIX, A, Adapter, B
from blt.checkpoint.convert import convert
from shapes import TINY

LAYER = "transformer.layers.0.ff.down"


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", [None, "float32", "bfloat16"])
def test_a_merged_weight_is_rounded_once(
    tmp_path: Path, stored: torch.dtype, precision: str | None
) -> None:
    model = blt.ByteLM(TINY).to(stored)
    model.save(tmp_path / "base")
    weight = model.state_dict()[f"{LAYER}.weight"]
    out, into = weight.shape
    a, b = torch.randn(2, into) * 0.05, torch.randn(out, 2) * 0.05
    config = Adapter({"peft_type": "LORA", "r": 2, "lora_alpha": 4.0})
    adapters.save(tmp_path / "adapter", config, {PREFIX + LAYER + A: a, PREFIX + LAYER + B: b})
    convert(tmp_path / "base", tmp_path / "out", precision=precision, merge=tmp_path / "adapter")
    found = blt.load(tmp_path / "out").state_dict()
    dtype = stored if precision is None else getattr(torch, precision)
    wanted = (weight.float() + 2.0 * (b @ a)).to(dtype)
    assert torch.equal(found[f"{LAYER}.weight"], wanted)
    for name, tensor in model.state_dict().items():
        if name != f"{LAYER}.weight":
            assert torch.equal(found[name], tensor.to(dtype)), name
