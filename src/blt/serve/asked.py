"""Texts that somebody wants written: what completions and chats come down to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from blt.generate import Sampling
from blt.serve.schemas import CompletionRequest, WritingRequest


@dataclass(frozen=True)
class Asked:
    """Prompts, and how each is continued.

    Attributes:
        prompts: bytes, or ids [T] int64 with BOS first.
        source: the parameter of the request that holds them.
        stop: what ends a text.
        alternatives: so many likely bytes are told of each byte; None: not its own probability.
        echo: are prompts part of the answer?
        specials: name of the special id that each prompt begins with, beside BOS.
    """

    request: WritingRequest
    prompts: list[bytes] | list[Tensor]
    source: str
    stop: tuple[bytes, ...]
    alternatives: int | None
    echo: bool = False
    specials: tuple[str | None, ...] = ()

    @classmethod
    def completions(cls, request: CompletionRequest) -> Asked:
        """By a request for completions."""
        return cls(
            request,
            request.prompts(),
            request.source,
            request.stops(),
            request.logprobs,
            bool(request.echo),
            tuple(request.specials()),
        )

    @property
    def n(self) -> int:
        """Texts of each prompt."""
        return self.request.n or 1

    @property
    def sizes(self) -> list[int]:
        """Bytes of each prompt, special ids but the first BOS among them."""
        return [len(p) - 1 if isinstance(p, Tensor) else len(p) for p in self.prompts]

    def sampling(self, seed: int) -> Sampling:
        """The engine's parameters; null means OpenAI's default."""
        request = self.request
        return Sampling(
            max_bytes=request.most_bytes,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_k=None if request.top_k in (-1, 0) else request.top_k,
            top_p=1.0 if request.top_p is None else request.top_p,
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            seed=seed,
            stop=self.stop,
            valid_utf8=request.valid_utf8,
            ignore_eos=request.ignore_eos,
        )
