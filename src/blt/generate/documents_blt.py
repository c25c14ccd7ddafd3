"""The cached Byte Latent Transformer: whole documents, which are read in one packed forward."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from blt.generate.caches.patches import PatchMemory, PatchPrefill
from blt.generate.caches.rings import Ring
from blt.generate.incremental import CachedModel, Text
from blt.generate.steps import BLTSteps, ByteSteps, KeysValues
from blt.generate.trails import Trail, weight
from blt.model.blt import ByteLatentTransformer
from blt.model.language import ByteModel
from blt.model.packing import PackedBatch, Spans, pack
from blt.model.routing import smooth
from blt.model.transformer import entropy, entropy_contexts
from blt.patching.streaming import Boundaries


class BLTDocuments(CachedModel):
    """A Byte Latent Transformer that has read whole documents, and what it remembers of them.

    Attributes:
        seen: [cross-attentions of the decoder, 2, patches, k, d] k and v: row by row of the patch
            that each text sees now; behind them, of patches that the last bytes have completed.
    """

    def __init__(
        self,
        model: ByteLatentTransformer,
        steps: BLTSteps,
        entropy_steps: ByteSteps | None,
        max_batch: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(model, max_batch, dtype)
        self.model, self.steps, self.entropy_steps = model, steps, entropy_steps
        encoder, decoder = model.encoder.transformer, model.decoder.transformer
        self.local = Ring([encoder, decoder], max_batch, self.dtype)
        self.encoder_layers = range(encoder.depth)
        self.decoder_layers = range(encoder.depth, encoder.depth + decoder.depth)
        self.rings = [self.local]
        self.patching = model.config.patching
        # Raises where the rule is not incremental.
        self.beginning: Boundaries = model.patcher.stream()
        if self.patching.needs_entropies:
            assert model.entropy_model is not None
            self.entropy_ring = Ring([model.entropy_model.transformer], max_batch, self.dtype)
            self.entropy_layers = range(model.entropy_model.transformer.depth)
            self.rings.append(self.entropy_ring)
        slices = (model.decoder.k, model.config.local_dim)
        shape = (max(1, len(model.decoder.cross_attention)), 2, 2 * max_batch, *slices)
        self.seen = torch.zeros(shape, dtype=torch.float32, device=self.device)

    @staticmethod
    def memory(model: ByteModel, bytes_read: int, dtype: torch.dtype = torch.float32) -> int:
        assert isinstance(model, ByteLatentTransformer)
        local = [model.encoder.transformer, model.decoder.transformer]
        if model.config.patching.needs_entropies and model.entropy_model is not None:
            local.append(model.entropy_model.transformer)
        patches = BLTDocuments.most_patches(model, bytes_read)
        of_patches = PatchMemory.bytes_of(patches, model.global_transformer.transformer, dtype)
        return Ring.bytes_per_row(local, dtype) + of_patches

    @staticmethod
    def most_patches(model: ByteLatentTransformer, bytes_read: int) -> int:
        """Patches that a text of so many bytes has at most."""
        rule = model.config.patching
        if rule.rule == "static":
            each = -(-rule.stride // min(rule.stride, rule.max_patch_length or rule.stride))
            return (bytes_read // rule.stride + 1) * each + 2  # every stride is split anew
        return bytes_read + 1

    @staticmethod
    def longest_patch(model: ByteLatentTransformer, bytes_read: int) -> int:
        """Bytes of the longest patch that a text of so many bytes can have."""
        rule = model.config.patching
        longest = {"byte": 1, "static": rule.stride}.get(rule.rule, bytes_read + 1)
        return min(bytes_read + 1, longest, rule.max_patch_length or longest)

    # --- whole documents -------------------------------------------------------------------------

    @torch.inference_mode()
    def prefill(self, documents: Sequence[list[int]]) -> None:
        first = len(self.texts)
        tensors = [torch.tensor(ids, dtype=torch.int64, device="cpu") for ids in documents]
        routed = self._encoded(tensors, first) if self.patching.is_learned else None
        cuts = self._cut_documents(documents, tensors, first, routed)
        decisions = [
            torch.tensor([True, *(cut.opens for cut in document)], dtype=torch.bool, device="cpu")
            for document in cuts
        ]
        host = pack(tensors, decisions)
        batch = host.to(self.device)
        # Only complete patches go on: the last one of a document may still be open.
        complete = [
            count - (not document[-1].opens)
            for count, document in zip(batch.patches.lengths, cuts, strict=True)
        ]
        memories = [
            PatchMemory(self.model.global_transformer.transformer, self.dtype) for _ in cuts
        ]
        latents = None
        if self._goes_compiled(len(host.ids)) and routed is None:
            x, seen, logits = self._read_compiled(batch, complete, memories)
            seen_ids = host.decoder_patch_ids
        else:
            kept = torch.cat(
                [
                    torch.arange(start, start + count, dtype=torch.int64, device="cpu")
                    for start, count in zip(batch.patches.offsets, complete, strict=False)
                ]
            )
            seen_ids = torch.searchsorted(kept, host.decoder_patch_ids)
            x = self._encoded(tensors, first) if routed is None else routed
            latents = self._latents(x, batch, kept, complete, memories)
            if self.patching.is_learned:
                p = [weight(cut.entropy) for cut in chain(*cuts) if cut.opens]
                latents = smooth(latents, latents.new_tensor(p, dtype=torch.float32))
            seen, logits = self._decoded(x, latents, seen_ids, batch.documents)
        offsets = batch.documents.offsets
        self._count(bytes_read=len(x), decoded=len(x), patches=sum(complete))
        for row, (document, cut, memory) in enumerate(
            zip(documents, cuts, memories, strict=True), first
        ):
            end = offsets[row - first + 1]
            memory.length = complete[row - first]
            text = Text(list(document), cut[-1], memory)
            if latents is not None and self.patching.is_learned:
                patch = sum(complete[: row - first + 1]) - 1
                text.trail = Trail(x[end - 1].clone(), latents[patch].clone())
            if not cut[-1].opens:
                text.open_patch = [x[int(host.patch_offsets[host.patch_ids[end - 1]]) : end]]
            self.texts.append(text)
            self.logits[row] = logits[end - 1]
            last = int(seen_ids[end - 1])
            self._see(row, [(k[last], v[last]) for k, v in seen])

    def _encoded(self, tensors: Sequence[Tensor], first: int) -> Tensor:
        """Ids [T] of new documents → encoder states of all  # [N, d]; they go into the cache."""
        model = self.model
        spans = Spans.from_lengths([len(ids) for ids in tensors], self.device)
        return model.encoder.transformer(  # type: ignore[no-any-return]
            model.encoder.embedding(torch.cat(list(tensors)).to(self.device), spans.positions),
            spans,
            self.local.prefill(self.encoder_layers, spans.offsets, spans.offsets, first),
        )

    def _latents(
        self,
        x: Tensor,
        batch: PackedBatch,
        kept: Tensor,
        complete: Sequence[int],
        memories: Sequence[PatchMemory],
    ) -> Tensor:
        """Encoder states x [N, d] → global output of the complete patches  # [K, D].

        Args:
            kept: [K] the complete patches.
            complete: how many of them each document has.
            memories: for the patches of each document.
        """
        patches = self.model.encoder.patches(x, batch.patch_ids, batch.num_patches)
        spans = Spans.from_lengths(complete, self.device)
        for memory, count in zip(memories, complete, strict=True):
            memory.reserve(count)
        layers = range(self.model.global_transformer.transformer.depth)
        caches = [PatchPrefill(layer, memories, spans.offsets) for layer in layers]
        return self.model.global_transformer(  # type: ignore[no-any-return]
            patches[kept.to(self.device)], spans, caches
        )

    def _decoded(
        self, x: Tensor, latents: Tensor, seen_ids: Tensor, documents: Spans
    ) -> tuple[KeysValues, Tensor]:
        """Encoder states [N, d] and global output [K, D] → what bytes see, and logits [N, 260].

        ``seen_ids`` [N] is the patch that each byte sees.
        """
        offsets, first = documents.offsets, len(self.texts)
        seen = self.model.decoder.keys_values(latents)
        caches = self.local.prefill(self.decoder_layers, offsets, offsets, first)
        ids = seen_ids.to(self.device)
        return seen, self.model.decoder.logits(x, seen, ids, documents, caches)

    def _read_compiled(
        self, batch: PackedBatch, complete: Sequence[int], memories: Sequence[PatchMemory]
    ) -> tuple[Tensor, KeysValues, Tensor]:
        """States [N, d] of bytes, what they see, of all patches, and logits [N, 260]."""
        assert self.compiled is not None
        offsets, first = batch.documents.offsets, len(self.texts)
        found = self.compiled.read_patches(batch)
        self.local.keep(self.encoder_layers, found.encoder, offsets, first)
        self.local.keep(self.decoder_layers, found.decoder, offsets, first)
        for memory, start, count in zip(memories, batch.patches.offsets, complete, strict=False):
            memory.keep(found.latent[:, :, start : start + count])
        return found.x, found.seen, found.logits

    def _cut_documents(
        self,
        documents: Sequence[list[int]],
        tensors: Sequence[Tensor],
        first: int,
        x: Tensor | None,
    ) -> list[list[Boundaries]]:
        """Boundaries after each id of whole documents, which are on the CPU.

        ``x`` [N, d] is what the encoder made of them, for a router.
        """
        entropies = [[0.0] * len(ids) for ids in documents]
        if self.model.router is not None and x is not None:
            local = Spans.from_lengths([len(ids) for ids in tensors], self.device)
            p = self.model.router.along(x, local)
            entropies = [part.tolist() for part in local.split(p)]
        if self.patching.needs_entropies:
            assert self.model.entropy_model is not None
            ids = torch.cat(list(tensors))
            spans = Spans.from_lengths([len(document) for document in documents])
            contexts = entropy_contexts(ids, spans, self.patching.newline_reset).to(self.device)
            ring, layers = self.entropy_ring, self.entropy_layers
            logits = self._read_bytes(
                self.model.entropy_model,
                ids.to(self.device),
                contexts,
                ring,
                layers,
                spans.offsets,
                first,
            )
            entropies = [part.tolist() for part in spans.split(entropy(logits))]
            self.counts.entropy_model += len(ids)
        return [
            read_all(self.beginning, ids, h) for ids, h in zip(documents, entropies, strict=True)
        ]

    # --- rows ------------------------------------------------------------------------------------

    def _see(self, where: int | slice, seen: KeysValues) -> None:
        """Put k and v of patches into ``seen``."""
        for pair, new in zip(self.seen, seen, strict=True):
            pair[0, where], pair[1, where] = new

    def _reserve(self, patches: int) -> None:
        """Make room in ``seen``."""
        if patches > self.seen.shape[2]:
            shape = (*self.seen.shape[:2], 2 * patches, *self.seen.shape[3:])
            with torch.inference_mode(False):  # rows are copied outside it
                grown = self.seen.new_zeros(shape)
            grown[:, :, : self.max_batch] = self.seen[:, :, : self.max_batch]
            self.seen = grown

    def _copy_row(self, source: int, target: int) -> None:
        super()._copy_row(source, target)
        self.seen[:, :, target] = self.seen[:, :, source]

    def _save_row(self, row: int) -> list[Tensor]:
        return [self.seen[:, :, row].clone()]

    def _load_row(self, row: int, saved: Sequence[Tensor]) -> None:
        self.seen[:, :, row] = saved[0]

    def _count(self, bytes_read: int = 0, decoded: int = 0, patches: int = 0) -> None:
        self.counts.encoder += bytes_read
        self.counts.decoder += decoded
        self.counts.global_transformer += patches
        self.counts.global_calls += patches > 0


def read_all(
    boundaries: Boundaries | None, ids: Sequence[int], entropies: Sequence[float] | None = None
) -> list[Boundaries]:
    """After each id."""
    cuts = []
    for token_id, h in zip(ids, entropies or [0.0] * len(ids), strict=True):
        assert boundaries is not None
        boundaries = boundaries.read(token_id, h)
        cuts.append(boundaries)
    return cuts
