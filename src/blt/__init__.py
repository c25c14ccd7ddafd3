"""Byte Latent Transformer: language models that read bytes (arXiv 2412.09871)."""

from typing import Any

from blt.lm import BLT, ByteLM, Patches, load
from blt.model.config import ByteTransformerConfig, Config
from blt.patching import PatchingConfig
from blt.vocab import decode, encode

__version__ = "0.1.0"

__all__ = [
    "BLT",
    "ByteLM",
    "ByteTransformerConfig",
    "Config",
    "Patches",
    "PatchingConfig",
    "decode",
    "encode",
    "from_transformers",
    "load",
]


def from_transformers(hf_model: Any) -> BLT:
    """A BLT with the weights of a ``transformers`` ``BltForCausalLM`` and of its patcher."""
    from blt.convert.transformers import from_transformers as convert

    return convert(hf_model)
