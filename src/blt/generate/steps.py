"""What a cached model computes for a few new bytes, in PyTorch; ``cpp/steps`` does it in C++."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blt.generate.lookback import shifted
from blt.model.blt import ByteLatentTransformer
from blt.model.layers import KeyValueCache
from blt.model.packing import Spans
from blt.model.transformer import CausalTransformer, entropy

Caches = Sequence[KeyValueCache]
Back = list[Tensor] | None  # as of blt.generate.lookback
KeysValues = Sequence[tuple[Tensor, Tensor]]  # per cross-attention, [P, k, d] each


class ByteSteps:
    """The steps of a byte transformer."""

    def __init__(self, model: CausalTransformer) -> None:
        self.model = model

    def logits(self, ids: Tensor, spans: Spans, caches: Caches, back: Back = None) -> Tensor:
        """ids [N] → [N, 260].

        Args:
            back: what their n-grams are made of, of a model that has some.
        """
        return self.model(ids, spans, caches, back=back)  # type: ignore[no-any-return]

    def entropies(self, ids: Tensor, spans: Spans, caches: Caches, back: Back = None) -> Tensor:
        """ids [N] → nats, of the prediction of the byte after each  # [N]."""
        return entropy(self.logits(ids, spans, caches, back))


class BLTSteps:
    """The steps of a Byte Latent Transformer, part by part."""

    def __init__(self, model: ByteLatentTransformer) -> None:
        self.model = model

    def encode(self, windows: Tensor, spans: Spans, caches: Caches, back: Back = None) -> Tensor:
        """Ids of B texts, reach - 1 old ones and n new ones each  # [B, reach - 1 + n].

        Args:
            back: what n-grams of the new ones are made of; None: the ids before them.

        Returns:
            states of the new bytes  # [B * n, d]
        """
        return self.model.encoder.transformer(self.embed(windows, back), spans, caches)  # type: ignore[no-any-return]

    def embed(self, windows: Tensor, back: Back = None) -> Tensor:
        """Ids as for :meth:`encode` → embeddings of the new bytes  # [B * n, d]."""
        embedding = self.model.encoder.embedding
        n = windows.shape[1] - embedding.reach + 1
        back = shifted(embedding, windows, n) if back is None else back
        return embedding.read(windows[:, -n:].flatten(), back)

    def pool(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """States [N, d] of the bytes of P patches of these sizes, end to end → [P, k * d]."""
        patch_ids = torch.repeat_interleave(torch.tensor(sizes, dtype=torch.int64, device=x.device))
        return self.model.encoder.patches(x, patch_ids, len(sizes))

    def globally(self, patches: Tensor, spans: Spans, caches: Caches) -> Tensor:
        """[P, k * d] → [P, global_dim]."""
        return self.model.global_transformer(patches, spans, caches)  # type: ignore[no-any-return]

    def keys_values(self, latents: Tensor) -> KeysValues:
        """What bytes see of patches: [P, global_dim] → k and v of each cross-attention."""
        return self.model.decoder.keys_values(latents)

    def decode(
        self, x: Tensor, seen: Tensor, seen_ids: Tensor, spans: Spans, caches: Caches
    ) -> Tensor:
        """Logits [N, 260].

        Args:
            x: [N, d] states of bytes.
            seen: [cross-attentions, 2, P, k, d] k and v of patches.
            seen_ids: [N] which of them each byte sees.
        """
        pairs = [(k, v) for k, v in seen]
        return self.model.decoder.logits(x, pairs, seen_ids, spans, caches).float()
