"""The Byte Latent Transformer, arXiv 2412.09871, figure 2, from bottom to top.

bytes ──► entropy model ──► patch boundaries
  │                               │
  └─► local encoder ──► patches ──┘
         │                 │
         │        global latent transformer
         │                 │
         └─► local decoder ◄──┘ ──► next byte
"""

from __future__ import annotations

from torch import Tensor, nn

from blt.model.byte_transformer import ByteTransformer
from blt.model.config import Config
from blt.model.decoder import LocalDecoder
from blt.model.encoder import LocalEncoder
from blt.model.latent import GlobalTransformer
from blt.model.packing import PackedBatch


class ByteLatentTransformer(nn.Module):
    """Logits for the next byte from a packed batch whose patches are already cut."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.entropy_model = ByteTransformer(config.entropy_model) if config.entropy_model else None
        self.encoder = LocalEncoder(config)
        self.global_transformer = GlobalTransformer(config)
        self.decoder = LocalDecoder(config)
        if self.entropy_model is not None:
            self.entropy_model.requires_grad_(False)  # it is trained first, and then only cuts

    def forward(self, batch: PackedBatch) -> Tensor:
        """N bytes in P patches → logits [N, 260]."""
        x, patches = self.encoder(batch)  # [N, d_local], [P, k * d_local]
        latents = self.global_transformer(patches, batch.patches)  # [P, d_global]
        return self.decoder(x, latents, batch)  # type: ignore[no-any-return]
