"""Steps that the host drives: it cuts, samples and keeps what is accepted, text by text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from blt.generate.drafting import Draft, draft
from blt.generate.incremental import CachedModel
from blt.generate.incremental_blt import CachedBLT
from blt.generate.request import Request
from blt.generate.sampling import distributions, draw, likeliest, verify


@dataclass(frozen=True)
class Scores:
    """What a model says about the next ids of texts, and what all of them need to know of it."""

    logits: np.ndarray  # [B, n, 260]
    finite: np.ndarray  # [B, n] all of them?
    totals: np.ndarray  # [B, n] log of the sum of their exponentials

    @classmethod
    def of(cls, logits: torch.Tensor) -> Scores:
        return cls(
            logits.cpu().numpy(),
            torch.isfinite(logits).all(-1).cpu().numpy(),
            torch.logsumexp(logits, -1).cpu().numpy(),
        )

    def __getitem__(self, row: int) -> Scores:
        return Scores(self.logits[row], self.finite[row], self.totals[row])


class DrivenWriter:
    """Writes texts that lie in the first rows of a model.

    Attributes:
        running: the requests, one per row.
    """

    def __init__(self, model: CachedModel) -> None:
        self.model, self.running = model, list[Request]()

    def besides(self, bytes_read: int) -> int:
        """Bytes that writing can take for a text, besides the model's caches: none."""
        return 0

    def memory(self, requests: Sequence[Request]) -> int:
        """Bytes of caches for requests together."""
        return sum(request.memory for request in requests)

    def join(self, requests: Sequence[Request]) -> None:
        """Take texts that have been read into the rows behind the others."""
        before = len(self.running)
        self.running += requests
        scores = Scores.of(self.model.logits[before : len(self.running), None])
        firsts = self._distributions(scores, before)
        for row in range(before, len(self.running)):
            at = row - before
            self._choose(row, scores[at], firsts[at], Draft(), [self._opens(row)])

    def leave(self, row: int) -> None:
        """Give up a row; the text in the last one takes it."""
        self.running[row] = self.running[-1]
        self.running.pop()

    def round(self) -> None:
        """Read the bytes chosen last, with drafts of those after them, and choose the next."""
        drafts, new_ids = draft(self.model, self.running)
        scores = Scores.of(self.model.extend(new_ids))
        firsts, kept = self._distributions(scores), []
        for row, drafted in enumerate(drafts):
            opens = self._opens_after(row, len(new_ids[row]))
            kept.append(self._choose(row, scores[row], firsts[row], drafted, opens))
        self.model.commit(kept)

    def _distributions(self, scores: Scores, before: int = 0) -> np.ndarray:
        """What the first id is drawn from, for requests from row ``before`` on  # [B, 260]."""
        choosers = [request.chooser for request in self.running[before:]]
        return distributions(choosers, scores.logits[:, 0])

    def _choose(
        self,
        row: int,
        scores: Scores,
        first: np.ndarray,
        drafted: Draft,
        opens: Sequence[bool],
    ) -> int:
        """Choose ids for one request, as long as they are as drafted.

        Args:
            row: of the request.
            scores: [n, 260] after the id chosen last and after each drafted one.
            first: what the first id is drawn from, [260].
            drafted: at most n - 1 ids.
            opens: [n] does the id that is chosen start a patch?

        Returns:
            how many of the n ids that were read stay.
        """
        request = self.running[row]
        for j, logits in enumerate(scores.logits):
            if not scores.finite[j]:
                request.finish("error", "the model's output is not finite")
                return j + 1
            p = request.chooser.probabilities(logits) if j else first
            total, kept = float(scores.totals[j]), None
            if j < len(drafted.ids):
                token = verify(p, drafted.drawn_from[j], drafted.ids[j], request.generator)
                kept = token == drafted.ids[j]
                request.drafted += 1
                request.accepted += kept
            else:
                token = draw(p, request.generator)
            top = likeliest(logits, total, request.alternatives) if request.alternatives else []
            request.push(token, float(logits[token] - total), opens[j], kept, top)
            if request.finish_reason is not None or not kept:
                return j + 1
        return len(scores.logits)

    def _opens(self, row: int) -> bool:
        boundaries = self.model.texts[row].boundaries
        return boundaries is None or boundaries.opens

    def _opens_after(self, row: int, n: int) -> list[bool]:
        if isinstance(self.model, CachedBLT):
            return self.model.opens_after(row)
        return [True] * n
