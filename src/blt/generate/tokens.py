"""Writing with a model over tokens, for evaluation: every step reads the whole text again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from blt import vocab
from blt.errors import require
from blt.generate.request import FinishReason, Generation, begun_by
from blt.generate.sampling import Sampling, draw
from blt.model.language import CausalLM
from blt.tokens.tokenizer import Tokenizer

TOGETHER = 16  # prompts
OPTIONS = ("max_bytes", "stop", "temperature", "seed")


class TokenModel(CausalLM, Protocol):
    """A language model whose ids are tokens."""

    tokenizer: Tokenizer
    bos: int
    eos: int

    def tokens_of(self, ids: Tensor) -> Tensor:
        """The ids of the model for ids over bytes."""


def generate(
    lm: TokenModel,
    prompts: vocab.Text | Tensor | Sequence[vocab.Text | Tensor] = b"",
    **options: Any,
) -> Generation | list[Generation]:
    """Continue one prompt or many; ``blt.generate.generate`` has the meaning of the options.

    Args:
        options: max_bytes, stop, temperature and seed; others only where they change nothing.

    Raises:
        UserError: an option that is unknown, impossible, or more than this can do; names it.
    """
    sampling, usual = Sampling.of(options), Sampling()
    for name in options:
        same = getattr(sampling, name) == getattr(usual, name)
        can = ", ".join(OPTIONS)
        require(name in OPTIONS or same, f"{name} cannot be done by a token model, only {can}")
    one = isinstance(prompts, vocab.Text | Tensor)
    asked: list[Any] = [prompts] if one else list(prompts)
    texts = [text if isinstance(text, Tensor) else vocab.to_bytes(text) for text in asked]
    results: list[Generation] = []
    for at in range(0, len(texts), TOGETHER):
        part = [
            _Text(lm, text, replace(sampling, seed=sampling.seed + index))
            for index, text in enumerate(texts[at : at + TOGETHER], at)
        ]
        while waiting := [text for text in part if text.reason is None]:
            for text, row in zip(waiting, _last(lm, [t.ids for t in waiting]), strict=True):
                text.push(_choose(row, sampling.temperature, text.chance))
        results += [text.result() for text in part]
    return results[0] if one else results


class _Text:
    """One text in the making."""

    def __init__(self, lm: TokenModel, prompt: bytes | Tensor, sampling: Sampling) -> None:
        self.lm, self.sampling, self.data = lm, sampling, b""
        self.prompt = vocab.decode(prompt) if isinstance(prompt, Tensor) else prompt
        self.before = prompt.tolist() if isinstance(prompt, Tensor) else prompt
        self.chance = random.Random(sampling.seed)
        read = lm.tokens_of(prompt) if isinstance(prompt, Tensor) else lm.ids_of(prompt)
        self.ids: list[int] = read.tolist()
        self.begun = len(self.ids)
        self.reason: FinishReason | None = None if sampling.max_bytes else "length"

    def result(self) -> Generation:
        begun = begun_by(self.before)
        return Generation(self.data, self.reason or "length", [], [], self.prompt, begun=begun)

    def push(self, token: int) -> None:
        if token == self.lm.eos:
            self.reason = "eos"
            return
        self.ids.append(token)
        self.data = self.lm.tokenizer.decode(self.ids[self.begun :])
        most = self.sampling.max_bytes
        found = [
            at
            for end in self.sampling.stop
            if (at := self.data[:most].find(end)) >= 0  # bytes beyond are none of the text
        ]
        if found:
            self.data, self.reason = self.data[: min(found)], "stop"
        elif len(self.data) >= most:
            self.data, self.reason = self.data[:most], "length"


@torch.no_grad()
def _last(lm: TokenModel, texts: Sequence[list[int]]) -> Tensor:
    """Logits after the last id of each, of what can be written  # [B, V]."""
    logits = lm.packed_logits(
        [torch.tensor(ids, dtype=torch.int64, device=lm.device) for ids in texts]
    )
    ends = torch.tensor([len(ids) for ids in texts], dtype=torch.int64, device="cpu").cumsum(0) - 1
    last = logits[ends.to(logits.device)].float().cpu()
    never = torch.ones(last.shape[1], dtype=torch.bool, device="cpu")
    never[lm.tokenizer.known] = False
    never[lm.bos] = True
    never[lm.eos] = False
    return last.masked_fill(never, -torch.inf)


def _choose(logits: Tensor, temperature: float, chance: random.Random) -> int:
    if temperature == 0:
        return int(logits.argmax())
    # Taken from the peak first: at tiny temperatures the quotients alone would overflow.
    weights = ((logits.double() - logits.max()) / temperature).exp()
    return draw(weights.numpy(), chance)
