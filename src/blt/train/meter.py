"""What a training takes of its machine: share of the peak, and memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from blt.lm import BLT, LanguageModel, TokenLM
from blt.machine.hardware import peak_flops, peak_memory
from blt.model.flops import (
    TRAINING_FACTOR,
    byte_transformer_flops,
    flops_per_byte,
    token_transformer_flops,
)


@dataclass(frozen=True)
class Meter:
    """The machine's share in one training.

    Args:
        model: what is trained.
        context_bytes: of a document.
        dtype: of matrix products.
        world: processes, a device each.
    """

    model: LanguageModel
    context_bytes: int
    dtype: torch.dtype
    world: int = 1

    def flops_per_byte(self, patch_size: float | None) -> float:
        """Forward and backward; the entropy model, frozen, is left out (paper §4.5).

        Args:
            patch_size: mean bytes per patch or token; None: a model without either.
        """
        size = min(max(1.0, patch_size or 1.0), self.context_bytes)
        if isinstance(self.model, BLT):
            return flops_per_byte(self.model.config, size, self.context_bytes).training
        if isinstance(self.model, TokenLM):
            shape = self.model.config
            return TRAINING_FACTOR * token_transformer_flops(shape, size, self.context_bytes)
        return TRAINING_FACTOR * byte_transformer_flops(self.model.config, self.context_bytes)

    @property
    def entropy_flops_per_byte(self) -> float:
        """FLOPs of the entropy model's forward, also where entropies were computed ahead."""
        if not isinstance(self.model, BLT) or not self.model.config.patching.needs_entropies:
            return 0.0
        assert self.model.config.entropy_model is not None
        return byte_transformer_flops(self.model.config.entropy_model, self.context_bytes)

    def mfu(self, patch_size: float | None, bytes_per_second: float) -> float | None:
        """Share of the devices' peak; None where that is not known."""
        peak = peak_flops(self.model.device, self.dtype)
        if peak is None:
            return None
        return self.flops_per_byte(patch_size) * bytes_per_second / (peak * self.world)

    @property
    def memory(self) -> int:
        """Bytes of this process at its peak, on the device."""
        return peak_memory(self.model.device)
