"""The cached Byte Latent Transformer: which patches new bytes complete, and what bytes see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from blt.generate.caches.patches import PatchMemory, PatchStep
from blt.generate.caches.rings import MAX_ROWS, RingPiece, RingStep
from blt.generate.cpp import steps as in_cpp
from blt.generate.cpp.products import is_native
from blt.generate.documents_blt import BLTDocuments, read_all
from blt.generate.incremental import CachedByteLM, CachedModel, Text, flat, step_of
from blt.generate.lookback import looking_back
from blt.generate.steps import BLTSteps, ByteSteps
from blt.generate.trails import Trail, next_probabilities, next_smoothed, weight
from blt.model.blt import ByteLatentTransformer
from blt.model.language import ByteModel
from blt.model.packing import Spans
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


class CachedBLT(BLTDocuments):
    """A Byte Latent Transformer that reads on, a few bytes of every text at once."""

    _pending: _Extension | None = None

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
                    [cut.context for cut in (before, *read_all(before, ids[:-1]))]
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
            read_all(before, ids, h)
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
