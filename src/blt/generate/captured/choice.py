"""The next byte of many texts, chosen on the device: ``generate.sampling`` in tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from blt.generate import spelling
from blt.generate.numbers import number_at
from blt.generate.sampling import Sampling
from blt.generate.spelling import MOST_ROOM
from blt.vocab import VOCAB_SIZE

BELOW_ONE = 1 - 2.0**-48  # of all probability: rounding must not leave the last id out


class Needs(NamedTuple):
    """What the texts of a batch need of a choice; what none needs is left out of a step."""

    draws: bool  # is any of them not greedy?
    truncates: bool
    penalises: bool

    @classmethod
    def of(cls, samplings: Iterable[Sampling]) -> Needs:
        drawn = penalised = truncated = False
        for sampling in samplings:
            drawn |= sampling.temperature > 0
            truncated |= sampling.temperature > 0 and sampling.truncates
            penalised |= sampling.repetition_penalty != 1
        return cls(drawn, truncated, penalised)


class Spelling:
    """Which ids may follow, for each state that a text can be in: ``generate.spelling``.

    Attributes:
        banned: [states, 1 + MOST_ROOM, 260] bool: by bytes that may still be written.
        following: [states, 260] int64: the state after an id.
    """

    def __init__(self, device: torch.device) -> None:
        tables = spelling.tables()
        self.banned = torch.from_numpy(tables.banned).to(device)
        self.following = torch.tensor(tables.following, dtype=torch.int64, device=device)


class Choosing(NamedTuple):
    """What bears on the next id of R texts, at n places of each: a text's own, and drafts."""

    spelling: Tensor  # [R, n] int64 state
    remaining: Tensor  # [R, n] int64 bytes that may still be written
    seen: Tensor  # [R, n, 260] bool ids in the text
    penalty: Tensor  # [R] float64, and so on
    temperature: Tensor
    top_k: Tensor  # int64
    top_p: Tensor
    min_p: Tensor

    def scores(self, logits: Tensor, spelling: Spelling, needs: Needs) -> Tensor:
        """Logits [R, n, 260] with the penalty, -inf where an id is forbidden  # float64."""
        scores = logits.double()
        if needs.penalises:
            penalty = self.penalty[:, None, None]
            less = torch.where(scores > 0, scores / penalty, scores * penalty)
            scores = torch.where(self.seen, less, scores)
        room = self.remaining.clamp(0, MOST_ROOM)
        return scores.masked_fill(spelling.banned[self.spelling, room], -torch.inf)

    def distribution(self, scores: Tensor, needs: Needs) -> Tensor:
        """Scores [R, n, 260] → what the next id is drawn from  # [R, n, 260] float64."""
        peak, best = scores.max(-1, keepdim=True)
        warm = self.temperature[:, None, None]
        greedy = warm == 0
        p = ((scores - peak) / torch.where(greedy, 1.0, warm)).exp()
        p = p / p.sum(-1, keepdim=True)
        likeliest = torch.arange(VOCAB_SIZE, dtype=torch.int64, device=p.device) == best
        if needs.truncates:
            p = torch.where(self._truncating(), self._truncated(p, likeliest), p)
        return torch.where(greedy, likeliest.double(), p)

    def _truncating(self) -> Tensor:
        some = (self.top_k < VOCAB_SIZE) | (self.min_p > 0) | (self.top_p < 1)
        return some[:, None, None]

    def _truncated(self, p: Tensor, likeliest: Tensor) -> Tensor:
        """Top-k, then min-p, then top-p, renormalised; the likeliest id stays."""
        top_k, top_p, min_p = (x[:, None, None] for x in (self.top_k, self.top_p, self.min_p))
        ordered, order = p.sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(VOCAB_SIZE, dtype=torch.int64, device=p.device)
        kept = (rank < top_k) & (ordered >= min_p * ordered[..., :1])
        left = torch.where(kept, ordered, 0.0)
        before = left.cumsum(-1) - left  # of the ids that are more likely
        kept &= (before < top_p * left.sum(-1, keepdim=True)) | (top_p == 1)
        kept = torch.zeros_like(kept).scatter_(-1, order, kept) | likeliest
        p = torch.where(kept, p, 0.0)
        return p / p.sum(-1, keepdim=True)


def drawn(p: Tensor, number: Tensor) -> Tensor:
    """Ids with the probabilities p [.., 260], by random numbers [..]  # [..] int64."""
    cumulative = p.cumsum(-1)
    at = number.clamp(max=BELOW_ONE)[..., None] * cumulative[..., -1:]
    return ((cumulative > at) & (p > 0)).byte().argmax(-1)


class Verdict(NamedTuple):
    """What comes after a text's own id and its drafts."""

    kept: Tensor  # [R] int64 drafts that stay
    token: Tensor  # [R] int64 the id after them
    taken: Tensor  # [R] int64 random numbers so far


def verdict(
    scores: Tensor,
    choosing: Choosing,
    needs: Needs,
    numbers: tuple[Tensor, Tensor],
    guesses: Tensor,
    drawn_from: Tensor,
    drafts: Tensor,
) -> Verdict:
    """Choose the next id, and keep drafts as far as the model would have written them.

    Speculative sampling (Leviathan et al., arXiv 2211.17192, §2.3), as ``sampling.verify``. A text
    takes a random number for each draft and each test, and one for the id after them.

    Args:
        scores: [R, n, 260] after a text's own id and after each draft.
        numbers: key and numbers taken before the drafts, [R] each.
        guesses: [R, n - 1] drafts.
        drawn_from: [R, n - 1, 260] their distributions.
        drafts: [R] how many of the n - 1 are a text's own; the others are padding.
    """
    n, (key, taken) = scores.shape[1], numbers
    best = scores.argmax(-1)  # [R, n]
    if n == 1:
        token = best[:, 0]
        if needs.draws:
            token = drawn(choosing.distribution(scores, needs)[:, 0], number_at(key, taken))
        return Verdict(torch.zeros_like(token), token, taken + 1)
    taken, places = taken + drafts, torch.arange(n - 1, dtype=torch.int64, device=key.device)
    p = choosing.distribution(scores, needs) if needs.draws else scores
    fits = best[:, :-1] == guesses
    if needs.draws:
        odds = _of(p[:, :-1], guesses) / _of(drawn_from, guesses)
        fits = number_at(key[:, None], taken[:, None] + places) < odds
    kept = (fits & (places < drafts[:, None])).to(torch.int64).cumprod(1).sum(1)
    rejected = kept < drafts
    token = best.gather(1, kept[:, None])[:, 0]
    if needs.draws:
        last = _row(p, kept)
        over = (last - _row(drawn_from, kept.clamp(max=n - 2))).clamp_min(0.0)
        over = torch.where(over.sum(-1, keepdim=True) > 0, over, last)
        number = number_at(key, taken + kept + rejected)
        token = drawn(torch.where(rejected[:, None], over, last), number)
    return Verdict(kept, token, taken + kept + 1 + rejected)


def _of(p: Tensor, ids: Tensor) -> Tensor:
    """Probabilities [R, n, 260] of ids [R, n]  # [R, n]."""
    return p.gather(-1, ids[..., None])[..., 0]


def _row(x: Tensor, index: Tensor) -> Tensor:
    """x [R, n, F] at ``index`` [R] of each  # [R, F]."""
    return x.gather(1, index[:, None, None].expand(-1, 1, x.shape[-1]))[:, 0]
