"""Which byte comes next: a distribution over ids from logits, and a choice from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np

from blt import vocab
from blt.errors import nearest, require, require_number, require_whole
from blt.generate import spelling
from blt.generate.numbers import Chance
from blt.generate.spelling import MOST_ROOM

END = -1  # the end of a text, among likely bytes


@dataclass(frozen=True)
class Sampling:
    """How to choose bytes, and when to end.

    Raises:
        UserError: an impossible value; names the parameter.
    """

    max_bytes: int = 256
    temperature: float = 0.0  # 0: always the most likely byte
    top_k: int | None = None  # among the k most likely bytes
    top_p: float = 1.0  # among the fewest bytes that have this much probability together
    min_p: float = 0.0  # among bytes at least this likely relative to the most likely one
    repetition_penalty: float = 1.0  # divides the odds of what occurs in the text (CTRL, §4.1)
    seed: int = 0
    stop: tuple[bytes, ...] = ()  # end before any of these
    valid_utf8: bool = False  # whole characters of UTF-8 only; False: any bytes
    ignore_eos: bool = False  # never end by itself

    def __post_init__(self) -> None:
        single = isinstance(self.stop, str | bytes) or not isinstance(self.stop, Iterable)
        stop: Iterable[Any] = (self.stop,) if single else self.stop
        object.__setattr__(self, "stop", tuple(vocab.to_bytes(s, "stop") for s in stop))
        require_whole("max_bytes", self.max_bytes, 0)
        require_whole("seed", self.seed, 0)
        if self.top_k is not None:
            require_whole("top_k", self.top_k, 1)
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            require_number(name, getattr(self, name))
        require(self.temperature >= 0, f"temperature must be at least 0, got {self.temperature}")
        require(0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, got {self.top_p}")
        require(0 <= self.min_p <= 1, f"min_p must lie in 0..1, got {self.min_p}")
        require(
            0.01 <= self.repetition_penalty <= 100,
            f"repetition_penalty must lie in 0.01..100, got {self.repetition_penalty}",
        )
        require(all(self.stop), "stop: an empty string would end every text at once; leave it out")
        within = [s for s in self.stop if 0x80 <= s[0] <= 0xBF] if self.valid_utf8 else []
        require(
            not within,
            f"stop: {within[:1]} begins within a character, where valid text cannot end; allow "
            "any bytes (valid_utf8 off), or begin it with a whole character",
        )

    @property
    def truncates(self) -> bool:
        """Does it leave out ids that are unlikely?"""
        return self.top_k is not None or self.min_p > 0 or self.top_p < 1

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Sampling:
        """From keyword arguments of a user."""
        known = [field.name for field in fields(cls)]
        for name in options:
            require(name in known, f"unknown option {name!r}; {nearest(name, known)}")
        return cls(**options)


@dataclass(frozen=True)
class Chooser:
    """What of a text so far bears on its next byte, besides logits."""

    sampling: Sampling
    remaining: int  # bytes that may still be written
    state: int  # of its spelling, see blt.generate.spelling
    seen: frozenset[int] = field(default_factory=frozenset)  # ids in the text

    @classmethod
    def begin(cls, sampling: Sampling, prompt: bytes, begun: bytes | None = None) -> Chooser:
        """Of a text that is to go on with a prompt.

        Args:
            begun: the character that its end has begun; None: as its bytes say.
        """
        begun = vocab.unfinished(prompt) if begun is None else begun
        how = {"valid_utf8": sampling.valid_utf8, "ignore_eos": sampling.ignore_eos}
        return cls(
            sampling,
            sampling.max_bytes,
            spelling.first(begun, sampling.max_bytes, **how),
            frozenset(byte + vocab.OFFSET for byte in set(prompt))
            if sampling.repetition_penalty != 1
            else frozenset(),
        )

    def after(self, token_id: int) -> Chooser:
        """After one more id."""
        state, seen = spelling.tables().following[self.state][token_id], self.seen
        if self.sampling.repetition_penalty != 1:
            seen = seen | {token_id}
        return Chooser(self.sampling, self.remaining - 1, state, seen)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits [260] → distribution that the next id is drawn from  # [260] float64."""
        p: np.ndarray = distributions([self], logits[None])[0]
        return p

    @property
    def room(self) -> int:
        """What matters of the bytes that remain, 0..MOST_ROOM; drafts may go beyond the end."""
        return min(max(self.remaining, 0), MOST_ROOM)

    def penalise(self, scores: np.ndarray) -> None:
        """Make what occurs in the text less likely, in scores [260] of it."""
        ids, penalty = list(self.seen), self.sampling.repetition_penalty
        scores[ids] = np.where(scores[ids] > 0, scores[ids] / penalty, scores[ids] * penalty)


def restrict(choosers: Sequence[Chooser], scores: np.ndarray) -> None:
    """Apply penalties, and forbid ids, in scores [B, 260] of many texts."""
    for chooser, row in zip(choosers, scores, strict=True):
        if chooser.seen:
            chooser.penalise(row)
    at = [one.state for one in choosers], [one.room for one in choosers]
    np.minimum(scores, spelling.tables().highest[at], out=scores)


def distributions(choosers: Sequence[Chooser], logits: np.ndarray) -> np.ndarray:
    """Logits [B, 260] of many texts → the distribution of each one's next id  # [B, 260]."""
    scores = logits.astype(np.float64)
    restrict(choosers, scores)
    p = np.empty_like(scores)
    drawn = [i for i, chooser in enumerate(choosers) if chooser.sampling.temperature > 0]
    if drawn:
        temperatures = np.array([[choosers[i].sampling.temperature] for i in drawn])
        # Taken from the peak first: at tiny temperatures the quotients alone would overflow.
        peaks = scores[drawn].max(1, keepdims=True)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite ends its request
            weights = np.exp((scores[drawn] - peaks) / temperatures)
        p[drawn] = weights / weights.sum(1, keepdims=True)
    for i, chooser in enumerate(choosers):
        if chooser.sampling.temperature == 0:
            p[i] = _only(int(scores[i].argmax()))
        elif chooser.sampling.truncates:
            p[i] = _truncated(p[i], int(scores[i].argmax()), chooser.sampling)
    return p


@lru_cache(maxsize=vocab.VOCAB_SIZE)
def _only(token_id: int) -> np.ndarray:
    """All probability on one id."""
    p = np.zeros(vocab.VOCAB_SIZE)
    p[token_id] = 1.0
    p.setflags(write=False)
    return p


def _truncated(p: np.ndarray, likeliest: int, sampling: Sampling) -> np.ndarray:
    """Top-k, then min-p, then top-p, renormalised; the likeliest id stays, whatever they say.

    Args:
        likeliest: also where others are as likely, but for rounding.
    """
    peak = p[likeliest]
    if sampling.top_k is not None and sampling.top_k < len(p):
        order = np.argsort(-p, kind="stable")
        p[order[sampling.top_k :]] = 0.0
    if sampling.min_p > 0:
        p[p < sampling.min_p * p.max()] = 0.0
    if sampling.top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]  # of the ids that are more likely
        p[order[before >= sampling.top_p * p.sum()]] = 0.0
    p[likeliest] = peak
    return p / p.sum()


def likeliest(logits: np.ndarray, total: float, count: int) -> list[tuple[int, float]]:
    """The most likely bytes after logits [260], and their log-probabilities in nats.

    END is among them where it is likelier than the last of them.

    Args:
        total: log of the sum of all exponentials.
    """
    of_bytes, of_end = logits[vocab.OFFSET :], logits[vocab.EOS]
    best = [int(byte) for byte in np.argsort(-of_bytes, kind="stable")[:count]]
    found = [(byte, float(of_bytes[byte] - total)) for byte in best]
    if best and of_end > of_bytes[best[-1]]:
        found.append((END, float(of_end - total)))
    return sorted(found, key=lambda one: -one[1])


def draw(p: np.ndarray, generator: Chance) -> int:
    """An id with the probabilities p [260].

    Takes one random number even where there is no choice: how many are taken must not depend on
    rounding, or a text would depend on its batch.
    """
    cumulative = p.cumsum()
    at = int(cumulative.searchsorted(generator.random() * cumulative[-1], side="right"))
    return at if at < len(p) else int(p.nonzero()[0][-1])


def verify(p: np.ndarray, q: np.ndarray, drafted: int, generator: Chance) -> int:
    """The next id, distributed as p, where ``drafted`` was drawn from q (speculative sampling).

    The draft is kept with probability min(1, p/q); otherwise one is drawn from what p has over q
    (Leviathan et al., arXiv 2211.17192, §2.3).
    """
    if generator.random() < p[drafted] / q[drafted]:
        return drafted
    over = np.maximum(p - q, 0.0)
    total = over.sum()
    return draw(over / total if total > 0 else p, generator)
