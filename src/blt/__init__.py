"""Byte Latent Transformer: language models that read bytes (arXiv 2412.09871)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from blt.machine.runtime import prepare_threads

if TYPE_CHECKING:
    from blt.errors import UserError
    from blt.lm import BLT, ByteLM, LanguageModel, from_transformers, load
    from blt.model.config import Block, ByteTransformerConfig, Config, RopeScaling
    from blt.patching import Patches, PatchingConfig
    from blt.vocab import decode, encode

prepare_threads()  # before anything of ours imports PyTorch

__version__ = "0.1.0"

__all__ = [
    "BLT",
    "Block",
    "ByteLM",
    "ByteTransformerConfig",
    "Config",
    "LanguageModel",
    "Patches",
    "PatchingConfig",
    "RopeScaling",
    "UserError",
    "decode",
    "encode",
    "from_transformers",
    "load",
]

# Looked up on first use, so that `blt --help` does not wait seconds for PyTorch.
_HOMES = {
    "BLT": "blt.lm",
    "Block": "blt.model.config",
    "ByteLM": "blt.lm",
    "ByteTransformerConfig": "blt.model.config",
    "Config": "blt.model.config",
    "LanguageModel": "blt.lm",
    "Patches": "blt.patching",
    "PatchingConfig": "blt.patching",
    "RopeScaling": "blt.model.config",
    "UserError": "blt.errors",
    "decode": "blt.vocab",
    "encode": "blt.vocab",
    "from_transformers": "blt.lm",
    "load": "blt.lm",
}


if not TYPE_CHECKING:  # which would take every name for one that is there

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'blt' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
