"""The steps of a Byte Latent Transformer: each part of the model once, over fixed slots."""

from __future__ import annotations

from itertools import chain, repeat

import torch
from torch import Tensor

from blt.generate.captured.attention import LayerCache, Seen
from blt.generate.captured.choice import Needs, drawn
from blt.generate.captured.slots import PatchCache, Patching, Seeing, Texts, Work
from blt.generate.captured.steps import ByteStack, RingCaches, Stack, Writing, report_places
from blt.generate.incremental_blt import CachedBLT
from blt.generate.lookback import shifted
from blt.generate.numbers import number_at
from blt.model.cross_attention import PatchesFromBytes
from blt.model.transformer import entropy
from blt.patching.streaming import contexts_after, opens_after, running_max
from blt.vocab import OFFSET


class BLTSteps(Writing):
    """What the host launches for each byte: drafts if there are any, then the others in order.

    Attributes:
        patching: the open patch of each text.
        seeing: what bytes see of patches.
        patches: caches of the global transformer.
    """

    def __init__(self, model: CachedBLT) -> None:
        self.net, self.rule = model.model, model.model.patcher.rule
        encoder, decoder = self.net.encoder, self.net.decoder
        cuts = self.net.entropy_model if model.patching.needs_entropies else None
        own = 1 if cuts is None or cuts.tables is None else cuts.tables.reach
        reach = max(encoder.embedding.reach, self.rule.reach, own) - 1
        dtype = encoder.embedding.byte.dtype
        super().__init__(model, max(reach, 1), self.net.config.local_dim, dtype)
        self.local, self.encoder_layers = model.local, model.encoder_layers
        self.decoder_layers, self.newline_reset = model.decoder_layers, model.patching.newline_reset
        self.encoder = Stack(encoder.transformer, self.device)
        self.decoder = Stack(decoder.transformer, self.device)
        self.entropy: ByteStack | None = None
        if cuts is not None:
            self.entropy = ByteStack(cuts, self.device)
            self.entropy_ring, self.entropy_layers = model.entropy_ring, model.entropy_layers
        large = self.net.global_transformer.transformer
        self.large = Stack(large, self.device)
        self.patches = PatchCache(large.depth, large.kv_heads, large.head_dim, model.dtype)
        self.seeing = Seeing(model.seen, self.most, _seen_dtype(model))
        self.crossing: PatchesFromBytes | None = None
        heads = 0
        if encoder.cross_attention:
            last = encoder.cross_attention[-1]
            assert isinstance(last, PatchesFromBytes)
            self.crossing, heads = last, last.heads
        shape = (self.most, 2, heads, 0, self.dim // max(heads, 1))  # Rooms makes it larger
        self.patching = Patching(
            torch.zeros(self.most, self.dim, dtype=dtype, device=self.device),
            torch.zeros(shape, dtype=model.dtype, device=self.device),
        )

    # --- drafts ----------------------------------------------------------------------------------

    def guess(self, rows: int, n: int, needs: Needs) -> None:
        """Draft n - 1 ids of each text with the patch seen now: encoder and decoder only."""
        texts, work, positions = self.views(rows, n)
        work.new[:, 0] = texts.token
        work.spelling[:, 0] = texts.spelling
        work.ids[:, 0] = texts.ids
        for place in range(n - 1):
            here = slice(place, place + 1)
            x = self._encode(texts, work.new[:, : place + 1], positions[:, here])
            logits = self._decode(x, positions[:, here], self.index[:rows], texts.home)
            choosing = self.choosing(texts, work, n)
            choosing = choosing._replace(
                spelling=choosing.spelling[:, here],
                remaining=choosing.remaining[:, here],
                seen=choosing.seen[:, here],
            )
            scores = choosing.scores(logits, self.spelling, needs)
            token = scores[:, 0].argmax(-1)
            if needs.draws:
                p = choosing.distribution(scores, needs)[:, 0]
                work.drawn_from[:, place] = p
                token = drawn(p, number_at(texts.key, texts.taken + place))
            token = torch.where(texts.drafts > place, token, OFFSET)
            work.new[:, place + 1] = token
            work.spelling[:, place + 1] = self.spelling.following[work.spelling[:, place], token]
            work.ids[:, place + 1] = work.ids[:, place].scatter(1, token[:, None], True)

    # --- reading ---------------------------------------------------------------------------------

    def cut(self, rows: int, n: int) -> None:
        """Find out which patches end, and report it."""
        texts, work, positions = self.views(rows, n)
        if n == 1:
            work.new.copy_(texts.token[:, None])
        contexts = texts.context[:, None].expand(rows, n)
        if self.newline_reset:
            contexts = contexts_after(texts.context, work.new, positions)
        if self.entropy is not None:
            starts = None
            if self.newline_reset:
                starts = torch.cat((texts.context[:, None], contexts[:, :-1]), 1)
            ring = RingCaches(self.entropy_ring, positions, texts.home, self.kernel, starts)
            places = positions if starts is None else positions - starts
            caches = ring.layers(self.entropy_layers)
            logits = self.entropy.logits(work.new, texts.recent, places, caches)
            work.entropies.copy_(entropy(logits))
        reach = self.rule.reach - 1
        recent = torch.cat((texts.recent[:, texts.recent.shape[1] - reach :], work.new), 1)
        entropies = torch.cat((texts.entropy[:, None], work.entropies), 1)
        opens, rule_starts = opens_after(self.rule, recent, positions, entropies, texts.rule_start)
        wanted = texts.active[:, None] > 0
        if n > 1:
            wanted = wanted & (self.places[:n] <= texts.drafts[:, None])
        closed = opens & wanted
        starts = running_max(texts.patch_start, torch.where(opens, positions + 1, 0))
        work.began[:, 0] = texts.patch_start
        work.began[:, 1:] = starts[:, :-1]
        work.opens.copy_(opens)
        work.closed.copy_(closed)
        work.after.copy_(torch.stack((rule_starts, contexts, starts, closed.cumsum(1)), 1))
        report_places(texts, n)[3] = closed.t()

    def encode(self, rows: int, n: int) -> None:
        """States of the bytes, and what the open patches become with them."""
        texts, work, positions = self.views(rows, n)
        x = self._encode(texts, work.new, positions)
        work.x.copy_(x.unflatten(0, (rows, n)))
        patching = self.patching.part(0, rows)
        peak = patching.peak
        for place, byte in enumerate(work.x.unbind(1)):
            fresh = work.began[:, place] == positions[:, place]
            peak = torch.where(fresh[:, None], byte, torch.maximum(peak, byte))
            work.peaks[:, place] = peak
        if self.crossing is not None:
            room = patching.open.shape[3]
            slot, row = positions % room, self.index[:rows, None].expand(rows, n)
            for memory, new in zip(
                patching.open.unbind(1), self.crossing.keys_values(x), strict=True
            ):
                new = new.to(memory.dtype).unflatten(-1, (memory.shape[1], -1))
                memory[row, :, slot] = new.unflatten(0, (rows, n))

    def _encode(self, texts: Texts, new: Tensor, positions: Tensor) -> Tensor:
        """States [R * n, d] of the last of the new ids [R, m], those at ``positions`` [R, n]."""
        embedding = self.net.encoder.embedding
        ids, n = torch.cat((texts.recent, new), 1), positions.shape[1]
        ring = RingCaches(self.local, positions, texts.home, self.kernel)
        x, delta = self.encoder.run(
            embedding.read(ids[:, -n:].flatten(), shifted(embedding, ids, n)),
            positions,
            self.encoder.rope(positions),
            ring.layers(self.encoder_layers),
        )
        return x if delta is None else x + delta

    # --- patches ---------------------------------------------------------------------------------

    def close(self, rows: int, n: int, patches: int) -> None:
        """Take the patches that have ended, at most so many, through the global transformer."""
        texts, work, _ = self.views(rows, n)
        closed = work.closed.flatten()
        rank = closed.cumsum(0) - 1
        order = rank.new_zeros(patches + 1)
        every = torch.arange(rows * n, dtype=torch.int64, device=self.device)
        order = order.scatter(0, torch.where(closed, rank, patches), every)[:patches]
        there = torch.arange(patches, dtype=torch.int64, device=self.device) <= rank[-1:]
        text = torch.div(order, n, rounding_mode="floor")
        latents = self._globally(texts, work, order, text, there)
        found = self.net.decoder.keys_values(latents)
        seen = torch.stack([torch.stack(pair) for pair in found])  # [crosses, 2, P, k, d]
        # With drafts it is known later which patches are kept.
        target = text if n == 1 else order + self.most + 1
        memory = self.seeing.memory
        memory[:, :, torch.where(there, target, self.most)] = seen.to(memory.dtype)

    def _globally(
        self, texts: Texts, work: Work, order: Tensor, text: Tensor, there: Tensor
    ) -> Tensor:
        """Global output for the patches that end in bytes ``order`` [P] of ``text`` [P]."""
        x = self._pooled(texts, work, order, text)
        before = texts.patches[:, None] + work.after[:, 3] - 1
        number = torch.where(there, before.flatten()[order], 0)
        memory, room = self.patches.memory, self.patches.room
        row = torch.where(there, text, 0)[:, None]
        slot = torch.where(there, number, room)[:, None]
        last = number[:, None] + 1
        seen = Seen.of(
            torch.zeros_like(last), last, memory, self.kernel, rows=row[:, 0], ring=False
        )
        caches = [LayerCache(layer, row, slot, seen) for layer in memory]
        x, delta = self.large.run(
            self.net.global_transformer.projection(x), number, self.large.rope(number), caches
        )
        return x if delta is None else x + delta

    def _pooled(self, texts: Texts, work: Work, order: Tensor, text: Tensor) -> Tensor:
        """Patch states [P, k * d]."""
        encoder = self.net.encoder
        pooled = work.peaks.flatten(0, 1)[order]
        queries = encoder.patch_projection(pooled).unflatten(-1, (encoder.k, -1))  # [P, k, d]
        cross = self.crossing
        if cross is not None:
            q = cross.query(cross.query_norm(queries)).unflatten(-1, (cross.heads, -1))
            first = work.began.flatten()[order]
            last = texts.position[text] + order % work.new.shape[1] + 1
            keys, values = self.patching.open.unbind(1)
            shape = (len(order), encoder.k)
            seen = Seen.of(
                first[:, None].expand(shape),
                last[:, None].expand(shape),
                keys,
                self.kernel,
                rows=text,
                ring=True,
            )
            attended = seen.attend(q, keys, values, cross.scale).flatten(2)
            queries = queries + (queries + cross.out(attended))
        return queries.flatten(1).to(work.x.dtype)

    # --- writing ---------------------------------------------------------------------------------

    def write(self, rows: int, n: int, needs: Needs) -> None:
        """Choose what comes next, and keep what was read up to there."""
        texts, work, positions = self.views(rows, n)
        index = self.index[:rows]
        seen_ids = index
        if n > 1:
            new = self.most + 1 + index[:, None] * n + self.places[:n]
            seen_ids = running_max(index, torch.where(work.closed, new, 0))  # [R, n]
        logits = self._decode(work.x.flatten(0, 1), positions, seen_ids.flatten(), texts.home)
        kept = self.choose(texts, work, logits, needs)
        self.advance(texts, work, kept)
        patching = self.patching.part(0, rows)
        if n == 1:
            after, texts_entropy = work.after[..., 0], work.entropies[:, 0]  # [R, 4], [R]
            patching.peak.copy_(work.peaks[:, 0])
        else:
            at = kept[:, None]
            after = work.after.gather(2, at[:, None].expand(-1, 4, -1))[..., 0]
            texts_entropy = work.entropies.gather(1, at)[:, 0]
            patching.peak.copy_(work.peaks[index, kept])
            memory = self.seeing.memory
            memory[:, :, :rows] = memory[:, :, seen_ids.gather(1, at)[:, 0]]
        texts.integers[1:4] = after[:, :3].t()
        texts.patches.add_(after[:, 3])
        texts.entropy.copy_(texts_entropy)

    def _decode(self, x: Tensor, positions: Tensor, seen_ids: Tensor, home: Tensor) -> Tensor:
        """Logits [R, n, 260] of states x [R * n, d], each seeing a patch ``seen_ids`` [R * n]."""
        decoder, memory = self.net.decoder, self.seeing.memory
        ring = RingCaches(self.local, positions, home, self.kernel)
        rope, delta = self.decoder.rope(positions), None
        crosses = chain(decoder.cross_attention, repeat(None))
        if not decoder.cross_attention:
            delta = memory[0, 1, seen_ids, 0].to(x.dtype)
        for index, (layer, cross, cache) in enumerate(
            zip(self.decoder.layers, crosses, ring.layers(self.decoder_layers), strict=False)
        ):
            if cross is not None:
                x, delta = cross(x, delta, *memory[index], seen_ids)
            x, delta = layer(x, delta, rope, self.decoder.spans(positions), cache)
        logits: Tensor = decoder.head(decoder.norm.add(x, delta)[1])
        return logits.float().unflatten(0, positions.shape)


def _seen_dtype(model: CachedBLT) -> torch.dtype:
    """Of what bytes see of patches: on a CPU as wide as in the steps that the host drives."""
    return model.seen.dtype if model.device.type == "cpu" else model.dtype
