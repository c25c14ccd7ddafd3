"""The cached Byte Latent Transformer: which patches new bytes complete, and what bytes see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from blt.generate.cache import (
    MAX_ROWS,
    PatchMemory,
    PatchPrefill,
    PatchStep,
    Ring,
    RingPiece,
    RingStep,
)
from blt.generate.cpp import steps as in_cpp
from blt.generate.cpp.products import is_native
from blt.generate.incremental import CachedByteLM, CachedModel, Text, flat, step_of
from blt.generate.lookback import looking_back
from blt.generate.steps import BLTSteps, ByteSteps, KeysValues
from blt.generate.trails import Trail, next_probabilities, next_smoothed, weight
from blt.model.blt import ByteLatentTransformer
from blt.model.language import ByteModel
from blt.model.packing import PackedBatch, Spans, pack
from blt.model.routing import smooth
from blt.model.transformer import entropy, entropy_contexts
from blt.patching.streaming import Boundaries

COMPACT_AFTER = 64  # parts of an open patch


@dataclass
class _Extension:
    """What ``commit`` needs to know about the last ``extend``."""

    first: int
    new_ids: Sequence[Sequence[int]]
    cuts: list[list[Boundaries]]  # [B][n] after each id
    x: Tensor  # [B, n, d] encoder states
    seen_ids: list[list[int]]  # [B][n] patch of ``CachedBLT.seen`` that each id sees
    latents: Tensor  # [P, global_dim] of the patches that the new ids complete


class CachedBLT(CachedModel):
    """A Byte Latent Transformer.

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
        self.beginning = model.patcher.stream()  # raises where the rule is not incremental
        if self.patching.needs_entropies:
            assert model.entropy_model is not None
            self.entropy_ring = Ring([model.entropy_model.transformer], max_batch, self.dtype)
            self.entropy_layers = range(model.entropy_model.transformer.depth)
            self.rings.append(self.entropy_ring)
        slices = (model.decoder.k, model.config.local_dim)
        shape = (max(1, len(model.decoder.cross_attention)), 2, 2 * max_batch, *slices)
        self.seen = torch.zeros(shape, dtype=torch.float32, device=self.device)
        self._pending: _Extension | None = None

    @staticmethod
    def memory(model: ByteModel, bytes_read: int, dtype: torch.dtype = torch.float32) -> int:
        assert isinstance(model, ByteLatentTransformer)
        local = [model.encoder.transformer, model.decoder.transformer]
        if model.config.patching.needs_entropies and model.entropy_model is not None:
            local.append(model.entropy_model.transformer)
        patches = CachedBLT.most_patches(model, bytes_read)
        of_patches = PatchMemory.bytes_of(patches, model.global_transformer.transformer, dtype)
        return Ring.bytes_per_row(local, dtype) + of_patches

    @staticmethod
    def most_patches(model: ByteLatentTransformer, bytes_read: int) -> int:
        """Patches that a text of so many bytes has at most."""
        rule = model.config.patching
        if rule.rule == "static":
            return bytes_read // min(rule.stride, rule.max_patch_length or rule.stride) + 2
        return bytes_read + 1

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
            _read_all(self.beginning, ids, h) for ids, h in zip(documents, entropies, strict=True)
        ]

    # --- a few bytes -----------------------------------------------------------------------------

    @torch.inference_mode()
    def extend(self, new_ids: Sequence[Sequence[int]], first: int = 0) -> Tensor:
        texts, n = self.texts[first : first + len(new_ids)], len(new_ids[0])
        positions = self._positions(texts, n)
        spans, step = flat(positions), step_of(self.local, positions, first)
        x = self._encode(texts, new_ids, spans, step)
        cuts = self._cut(texts, new_ids, step, spans, x)
        seen_ids, latents = self._complete_patches(texts, cuts, x, first)
        logits = self._decode(x, seen_ids, spans, step)
        self._count(bytes_read=len(texts) * n, decoded=len(texts) * n)
        states = x.unflatten(0, (-1, n))
        self._pending = _Extension(first, new_ids, cuts, states, seen_ids, latents)
        return logits.unflatten(0, (len(texts), n))

    @torch.inference_mode()
    def draft(self, new_ids: Sequence[Sequence[int]]) -> Tensor:
        """Logits after the last of the new ids [B][n], guessed with the patch seen now  # [B, 260].

        Encoder and decoder only; the ids before the last must have been drafted just before.
        """
        texts, last = self.texts[: len(new_ids)], len(new_ids[0]) - 1
        positions = self._positions(texts, last + 1)[:, last:].contiguous()
        spans, step = flat(positions), self.local.step(positions)
        x = self._encode(texts, new_ids, spans, step)
        logits = self._decode(x, [[row] for row in range(len(texts))], spans, step)
        self.counts.decoder += len(texts)
        return logits

    def _cut(
        self,
        texts: Sequence[Text],
        new_ids: Sequence[Sequence[int]],
        step: RingStep | RingPiece,
        spans: Spans,
        x: Tensor,
    ) -> list[list[Boundaries]]:
        """Boundaries after each new id, which the encoder made x [B * n, d] of."""
        befores = [text.boundaries for text in texts]
        entropies = [[0.0] * len(ids) for ids in new_ids]
        if self.model.router is not None:
            p = next_probabilities(self.model.router, _trails(texts), x, spans.positions)
            entropies = p.tolist()
        if self.patching.needs_entropies:
            assert self.entropy_steps is not None
            starts, contexts = None, None
            if self.patching.newline_reset:
                contexts = [
                    [cut.context for cut in (before, *_read_all(before, ids[:-1]))]
                    for before, ids in zip(befores, new_ids, strict=True)
                    if before is not None
                ]
                starts = torch.tensor(contexts, dtype=torch.int64, device=self.device)
                spans = flat(step.positions - starts)
            ring = step_of(self.entropy_ring, step.positions, step.first, starts)
            ids = torch.tensor(new_ids, dtype=torch.int64, device=self.device)
            caches = ring.caches(self.entropy_layers)
            tables, back = self.entropy_steps.model.tables, None
            if tables is not None:
                before, n = [text.ids for text in texts], ids.shape[1]
                back = looking_back(tables, before, new_ids, n, contexts)
            found = self.entropy_steps.entropies(ids.flatten(), spans, caches, back)
            entropies = found.view(ids.shape).tolist()
            self.counts.entropy_model += ids.numel()
        return [
            _read_all(before, ids, h)
            for before, ids, h in zip(befores, new_ids, entropies, strict=True)
            if before is not None
        ]

    def _encode(
        self,
        texts: Sequence[Text],
        new_ids: Sequence[Sequence[int]],
        spans: Spans,
        step: RingStep | RingPiece,
    ) -> Tensor:
        """States of the bytes at the step's positions, the last of the new ids  # [B * n, d]."""
        embedding, n = self.model.encoder.embedding, step.positions.shape[1]
        width, back = embedding.reach - 1 + n, None
        if "repeats" in embedding.fold:
            back = looking_back(embedding, [text.ids for text in texts], new_ids, n)
        windows = [
            ([0] * width + text.ids[-width:] + list(ids))[-width:]
            for text, ids in zip(texts, new_ids, strict=True)
        ]
        ids = torch.tensor(windows, dtype=torch.int64, device=self.device)
        return self.steps.encode(ids, spans, step.caches(self.encoder_layers), back)

    def _complete_patches(
        self, texts: Sequence[Text], cuts: list[list[Boundaries]], x: Tensor, first: int
    ) -> tuple[list[list[int]], Tensor]:
        """Take the patches that new bytes complete through the global transformer, into ``seen``.

        Returns:
            which patch of ``seen`` each new byte sees  # [B][n]; and what the global transformer,
            and a router, made of the patches  # [P, global_dim]
        """
        rows = x.unflatten(0, (len(texts), -1))
        pieces: list[Tensor] = []
        sizes: list[int] = []
        counts: list[int] = []
        seen_ids: list[list[int]] = []
        for row, (text, document) in enumerate(zip(texts, cuts, strict=True)):
            seen_ids.append([])
            parts, start, now, before = text.open_patch, 0, first + row, len(sizes)
            for j, cut in enumerate(document):
                if cut.opens:
                    parts = [*parts, rows[row, start : j + 1]]
                    pieces += parts
                    now = self.max_batch + len(sizes)
                    sizes.append(sum(map(len, parts)))
                    parts, start = [], j + 1
                seen_ids[-1].append(now)
            counts.append(len(sizes) - before)
        latents = x[:0]
        if sizes:
            patches = self.steps.pool(torch.cat(pieces), sizes)
            latents = self._globally(texts, counts, patches)
            if self.patching.is_learned:
                weights = [weight(cut.entropy) for cut in chain(*cuts) if cut.opens]
                latents = next_smoothed(_trails(texts), counts, latents, weights)
            self._reserve(self.max_batch + len(sizes))
            self._see(
                slice(self.max_batch, self.max_batch + len(sizes)), self.steps.keys_values(latents)
            )
        return seen_ids, latents

    def _globally(self, texts: Sequence[Text], counts: Sequence[int], patches: Tensor) -> Tensor:
        """Output of the global transformer for new patches, so many of each text  # [P, d]."""
        many = len(texts) == 1 and counts[0] > MAX_ROWS  # PyTorch's products read keys only once
        memories: list[PatchMemory] = []
        numbers: list[int] = []
        positions: list[int] = []
        for text, count in zip(texts, counts, strict=True):
            if count and text.patches is not None:
                text.patches.reserve(count)
                memories.append(text.patches)
                numbers.append(count)
                positions += range(text.patches.length, text.patches.length + count)
        self._count(patches=len(positions))
        where = torch.tensor(positions, dtype=torch.int64, device=self.device)
        step = PatchStep(memories, numbers, where)
        caches = [step.layer(i) for i in range(len(memories[0].memory))] if many else step.caches()
        return self.steps.globally(patches, flat(where), caches)

    def _decode(
        self, x: Tensor, seen_ids: list[list[int]], spans: Spans, step: RingStep | RingPiece
    ) -> Tensor:
        ids = torch.tensor(seen_ids, dtype=torch.int64, device=self.device).flatten()
        return self.steps.decode(x, self.seen, ids, spans, step.caches(self.decoder_layers))

    def opens_after(self, row: int) -> list[bool]:
        """Would a byte after each id that ``row`` was last extended by start a patch?  # [n]"""
        assert self._pending is not None
        return [cut.opens for cut in self._pending.cuts[row - self._pending.first]]

    def commit(self, accepted: Sequence[int]) -> None:
        done = self._pending
        assert done is not None
        self._pending = None
        for index, count in enumerate(accepted):
            if count == 0:
                continue
            text, cuts = self.texts[done.first + index], done.cuts[index][:count]
            text.ids += done.new_ids[index][:count]
            text.boundaries = cuts[-1]
            last = done.seen_ids[index][count - 1]
            closed = [j for j, cut in enumerate(cuts) if cut.opens]
            after = 0
            if closed and text.patches is not None:
                text.patches.length += len(closed)
                text.open_patch, after = [], closed[-1] + 1
                self.seen[:, :, done.first + index] = self.seen[:, :, last]
            if text.trail is not None:
                smoothed = done.latents[last - self.max_batch].clone() if closed else None
                text.trail = text.trail.after(done.x[index, count - 1].clone(), smoothed)
            if after < count:
                text.open_patch.append(done.x[index, after:count])
            if len(text.open_patch) > COMPACT_AFTER:
                text.open_patch = [torch.cat(text.open_patch)]

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


def _read_all(
    boundaries: Boundaries | None, ids: Sequence[int], entropies: Sequence[float] | None = None
) -> list[Boundaries]:
    """After each id."""
    cuts = []
    for token_id, h in zip(ids, entropies or [0.0] * len(ids), strict=True):
        assert boundaries is not None
        boundaries = boundaries.read(token_id, h)
        cuts.append(boundaries)
    return cuts


def _trails(texts: Sequence[Text]) -> list[Trail]:
    return [text.trail for text in texts if text.trail is not None]


def cached(model: ByteModel, max_batch: int, dtype: torch.dtype = torch.float32) -> CachedModel:
    """A model with room for ``max_batch`` texts, and caches of ``dtype``."""
    blt_steps, byte_steps = BLTSteps, ByteSteps
    if is_native(model):
        byte_steps = in_cpp.NativeByteSteps
        if in_cpp.fits(model):
            blt_steps = in_cpp.NativeBLTSteps
    if not isinstance(model, ByteLatentTransformer):
        return CachedByteLM(model, byte_steps(model), max_batch, dtype)
    entropy_steps = byte_steps(model.entropy_model) if model.entropy_model else None
    return CachedBLT(model, blt_steps(model), entropy_steps, max_batch, dtype)
