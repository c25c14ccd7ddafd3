"""Models over bytes: a BLT, and a byte transformer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from blt import vocab
from blt.checkpoint.folders import PATCHING
from blt.lm.language_model import LanguageModel
from blt.machine.runtime import keep_freed_memory
from blt.model.blt import ByteLatentTransformer
from blt.model.config import ByteTransformerConfig, Config
from blt.model.language import Batch, Ready
from blt.model.packing import Laid, PackedBatch, end_to_end, on, pack
from blt.model.prefix_tree import PrefixTree
from blt.model.transformer import CausalTransformer
from blt.model.tree_logits import blt_tree_logits, transformer_tree_logits
from blt.patching import Patches
from blt.patching.thresholds import check_has_threshold


class ByteLM(LanguageModel, CausalTransformer):
    """Byte transformer without patches: entropy model, or baseline."""

    kind = "byte"
    config: ByteTransformerConfig
    # As an entropy model: the rule and θ that were calibrated for it, which go where it goes.
    patching: Mapping[str, Any] | None = None

    def __init__(self, config: ByteTransformerConfig) -> None:
        keep_freed_memory()
        CausalTransformer.__init__(self, config)

    def files(self) -> dict[str, str]:
        own = (
            {} if self.patching is None else {PATCHING: json.dumps(self.patching, indent=2) + "\n"}
        )
        return super().files() | own

    def packed_logits(self, documents: Sequence[Tensor]) -> Tensor:
        return self(*end_to_end(documents, self.device))  # type: ignore[no-any-return]

    def tree_logits(self, tree: PrefixTree) -> Tensor:
        return transformer_tree_logits(self, tree)


class BLT(LanguageModel, ByteLatentTransformer):
    """A Byte Latent Transformer with its entropy model (paper §3)."""

    kind = "blt"
    config: Config

    def __init__(self, config: Config) -> None:
        keep_freed_memory()
        ByteLatentTransformer.__init__(self, config)

    def packed_logits(self, documents: Sequence[Tensor]) -> Tensor:
        return self(self.lay_out(documents))  # type: ignore[no-any-return]

    @property
    def threshold(self) -> float:
        check_has_threshold(self.config.patching)
        return self.config.patching.threshold

    @threshold.setter
    def threshold(self, nats: float) -> None:
        check_has_threshold(self.config.patching)
        self.config = replace(self.config, patching=replace(self.config.patching, threshold=nats))

    def calibrate(self, texts: Sequence[vocab.Text], target_patch_size: float, **how: Any) -> float:
        documents = [vocab.to_bytes(text) for text in texts]
        found = self.patcher.calibrated(documents, target_patch_size, **how).config.threshold
        self.threshold = found
        return found

    @property
    def shares_prefixes(self) -> bool:
        patching = self.config.patching  # a router, or an entropy model that sees lines, cannot
        return not (patching.is_learned or patching.newline_reset)

    def tree_logits(self, tree: PrefixTree) -> Tensor:
        return blt_tree_logits(self, tree)

    def ready(self, batch: Batch) -> Ready:
        packed = self.lay_out(batch.documents, batch.entropies)
        if self.device.type != "cpu":  # there the rows are grouped when the gradient is wanted
            groups = self.encoder.embedding.groups(packed.ids, packed.documents.positions)
            packed = replace(packed, ngrams=groups)
        targets = on(batch.targets, self.device)
        size = packed.mean_patch_size if isinstance(packed, PackedBatch) else None
        return Ready(batch, (packed,), targets, size)

    def lay_out(
        self, documents: Sequence[Tensor], entropies: Sequence[Tensor | None] | None = None
    ) -> PackedBatch | Laid:
        """What the forward reads, on the device: cut, unless the model cuts itself as it reads.

        Args:
            documents: ids, each [T] with T >= 1.
            entropies: as of :meth:`pack`.
        """
        if self.router is not None:
            return Laid(*end_to_end(documents, self.device))
        return self.pack(documents, entropies, self.device)

    def pack(
        self,
        documents: Sequence[Tensor],
        entropies: Sequence[Tensor | None] | None = None,
        device: torch.device | None = None,
    ) -> PackedBatch:
        """Cut documents, each ids [T] with T >= 1, into patches and lay them end to end.

        Args:
            entropies: nats [T] of each, where they are known; None: the entropy model is asked.
            device: of the batch; None: that of the documents.
        """
        return pack(documents, self.patcher.decide(documents, entropies)[0], device)

    def decide(self, documents: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Boundaries [T + 1] bool and entropies [T] (or None) of each document."""
        return self.patcher.decide(documents)

    def patch(self, text: vocab.Text | Tensor) -> Patches:
        """Cut a document into patches.

        Args:
            text: ``str`` or bytes-like, in front of which BOS is put as a position of its own; or
                ids [T] int64, taken as they are.
        """
        ids = text if isinstance(text, Tensor) else vocab.encode(text)
        return self.patcher.patch(ids.to(self.device))
