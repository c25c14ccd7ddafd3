"""The steps of a byte: read what was chosen last, take closed patches on, choose what comes next.

Every step takes the first R rows and n places of each: the id chosen last, then n - 1 drafts. All
that it needs and all that it finds lies in tensors that stay where they are, so that a step can be
captured; no step asks the host for anything.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.generate.caches.rings import Ring
from blt.generate.captured.attention import Kernel, LayerCache, Seen, kernel_for
from blt.generate.captured.choice import Choosing, Needs, Spelling, verdict
from blt.generate.captured.slots import PLACE, Texts, Work
from blt.generate.incremental import CachedByteLM, CachedModel
from blt.generate.lookback import shifted
from blt.model.layers import Transformer, rope_rotations
from blt.model.packing import Spans
from blt.model.transformer import CausalTransformer


class Stack:
    """A transformer's layers over new positions of many texts, with what is the same for all."""

    def __init__(self, transformer: Transformer, device: torch.device) -> None:
        self.transformer, self.layers = transformer, transformer.layers
        self.frequencies = transformer.frequencies(device)

    def rope(self, positions: Tensor) -> Tensor:
        return rope_rotations(positions.flatten(), self.frequencies)

    @staticmethod
    def spans(positions: Tensor) -> Spans:
        return Spans.along(positions.flatten())

    def run(
        self, x: Tensor, positions: Tensor, rope: Tensor, caches: Iterable[LayerCache]
    ) -> tuple[Tensor, Tensor | None]:
        """x [N, d] → two tensors [N, d] that are to be added up; there may be no second."""
        delta, spans = None, self.spans(positions)
        for layer, cache in zip(self.layers, caches, strict=True):
            x, delta = layer(x, delta, rope, spans, cache)
        return x, delta


class ByteStack(Stack):
    """A byte transformer: the entropy model, or one that writes."""

    def __init__(self, net: CausalTransformer, device: torch.device) -> None:
        super().__init__(net.transformer, device)
        self.net = net

    @property
    def reach(self) -> int:
        """Ids that an embedding is made of."""
        return 1 if self.net.tables is None else self.net.tables.reach

    def logits(
        self, ids: Tensor, recent: Tensor, positions: Tensor, caches: Iterable[LayerCache]
    ) -> Tensor:
        """ids [R, n] at positions [R, n], after ``recent`` [R, W] → [R, n, 260]."""
        x = F.embedding(ids.flatten(), self.net.byte)
        if self.net.tables is not None:
            windows = torch.cat((recent, ids), 1)
            x = x + self.net.tables(shifted(self.net.tables, windows, ids.shape[1], positions))
        x, delta = self.run(x, positions, self.rope(positions), caches)
        logits: Tensor = self.net.head(self.net.norm.add(x, delta)[1])
        return logits.unflatten(0, ids.shape)


class RingCaches:
    """Rings in a step of R texts by n places."""

    def __init__(
        self,
        ring: Ring,
        positions: Tensor,
        home: Tensor,
        kernel: Kernel | None,
        starts: Tensor | None = None,
    ) -> None:
        self.memory = ring.memory
        self.row, self.slot = home[:, None].expand_as(positions), positions % ring.capacity
        first = (positions - ring.window + 1).clamp_min(0)
        if starts is not None:
            first = torch.maximum(first, starts)
        self.seen = Seen.of(first, positions + 1, ring.memory, kernel, ring=True)

    def layers(self, which: range) -> list[LayerCache]:
        return [LayerCache(self.memory[:, i], self.row, self.slot, self.seen) for i in which]


class Writing:
    """What the steps of all models share: positions, the choice, what is kept."""

    def __init__(self, model: CachedModel, reach: int, dim: int, dtype: torch.dtype) -> None:
        # Of the rings' rows the last one is nobody's: there goes what empty rows would keep.
        self.device, self.most = model.device, model.max_batch - 1
        self.dim, self.dtype = dim, dtype
        self.kernel = kernel_for(self.device)
        self.spelling = Spelling(self.device)
        self.texts = Texts.empty(self.most, reach, self.device)
        self.index = torch.arange(self.most, dtype=torch.int64, device=self.device)
        self.places = torch.arange(64, dtype=torch.int64, device=self.device)
        self._work: dict[int, Work] = {}

    def work(self, n: int) -> Work:
        """Of steps of n places; made before a step is captured."""
        if n not in self._work:
            self._work[n] = Work.empty(self.most, n, self.dim, self.dtype, self.device)
        return self._work[n]

    def views(self, rows: int, n: int) -> tuple[Texts, Work, Tensor]:
        """The texts and the work of a step, and positions of what it reads  # [R, n]."""
        texts = self.texts.part(0, rows)
        return texts, self.work(n).part(0, rows), texts.position[:, None] + self.places[:n]

    def choosing(self, texts: Texts, work: Work, n: int) -> Choosing:
        """What the choice at each place depends on."""
        alone = n == 1
        return Choosing(
            texts.spelling[:, None] if alone else work.spelling,
            texts.remaining[:, None] - self.places[:n],
            texts.ids[:, None] if alone else work.ids,
            texts.penalty,
            texts.temperature,
            texts.top_k,
            texts.top_p,
            texts.min_p,
        )

    def choose(self, texts: Texts, work: Work, logits: Tensor, needs: Needs) -> Tensor:
        """Choose ids from logits [R, n, 260], and report them.

        Returns:
            [R] how many drafts are kept.
        """
        n = logits.shape[1]
        texts.logits[:, :n] = logits
        choosing = self.choosing(texts, work, n)
        scores = choosing.scores(logits, self.spelling, needs)
        kept, token, taken = verdict(
            scores,
            choosing,
            needs,
            (texts.key, texts.taken),
            work.new[:, 1:],
            work.drawn_from,
            texts.drafts,
        )
        ids = token[:, None]
        if n > 1:
            drafts = torch.cat((work.new[:, 1:], ids), 1)
            ids = torch.where(self.places[:n] < kept[:, None], drafts, ids)
        log_p = logits.gather(-1, ids[..., None])[..., 0] - torch.logsumexp(logits, -1)
        total = logits.sum(-1)
        finite = total - total == 0  # one that is not finite makes the sum so
        told = torch.stack((torch.where(finite, ids, -1).float(), log_p, work.opens.float()))
        texts.report[0] = kept + 1
        report_places(texts, n)[:3] = told.transpose(1, 2)
        spelling, seen = texts.spelling, texts.ids
        if n > 1:
            spelling = work.spelling.gather(1, kept[:, None])[:, 0]
            seen = work.ids.gather(1, kept[:, None, None].expand(-1, 1, seen.shape[1]))[:, 0]
        if needs.penalises:
            texts.ids.copy_(seen).scatter_(1, token[:, None], True)
        texts.spelling.copy_(self.spelling.following[spelling, token])
        texts.remaining.sub_(kept + 1)
        texts.token.copy_(token)
        texts.taken.copy_(taken)
        return kept

    def first(self, row: int, logits: Tensor, needs: Needs, opens: bool) -> None:
        """Choose the first id of a text that has been put into a row, from logits [260]."""
        texts, work = self.texts.part(row, 1), self.work(1).part(0, 1)
        work.opens.fill_(opens)
        self.choose(texts, work, logits[None, None], needs)

    def advance(self, texts: Texts, work: Work, kept: Tensor) -> None:
        """Keep the ids that were read up to the last draft that is kept."""
        n, width = work.new.shape[1], texts.recent.shape[1]
        read = torch.cat((texts.recent, work.new), 1)
        if n == 1:
            texts.recent.copy_(read[:, 1:])
        else:
            window = kept[:, None] + 1 + self.places[:width]
            texts.recent.copy_(read.gather(1, window))
        texts.position.add_((kept + 1) * texts.active)


def report_places(texts: Texts, n: int) -> Tensor:
    """What is reported of n places  # [4, n, R], a view."""
    lines = texts.report[1 : 1 + len(PLACE) * n]
    return lines.unflatten(0, (n, len(PLACE))).transpose(0, 1)


class ByteSteps(Writing):
    """The steps of a byte transformer without patches: there is only one."""

    def __init__(self, model: CachedByteLM) -> None:
        self.stack = ByteStack(model.model, model.device)
        super().__init__(model, max(self.stack.reach - 1, 1), 0, torch.float32)
        self.ring, self.layers = model.rings[0], model.layers

    def write(self, rows: int, n: int, needs: Needs) -> None:
        texts, work, positions = self.views(rows, n)
        work.new.copy_(texts.token[:, None])
        work.opens.fill_(True)
        caches = RingCaches(self.ring, positions, texts.home, self.kernel).layers(self.layers)
        logits = self.stack.logits(work.new, texts.recent, positions, caches).float()
        self.advance(texts, work, self.choose(texts, work, logits, needs))
