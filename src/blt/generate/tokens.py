"""Writing with a model over tokens, for evaluation: every step reads the whole text again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blt import vocab
from blt.errors import require
from blt.generate.request import FinishReason, Generation

if TYPE_CHECKING:
    from blt.token_lm import TokenModel

TOGETHER = 16  # prompts


def generate(
    lm: TokenModel,
    prompts: vocab.Text | Sequence[vocab.Text] = b"",
    *,
    max_bytes: int = 256,
    stop: str | bytes | Sequence[str | bytes] = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> Generation | list[Generation]:
    """Continue one prompt or many; ``blt.generate.generate`` has the meaning of the options."""
    require(temperature >= 0, f"temperature must be at least 0, got {temperature}")
    one = isinstance(prompts, vocab.Text)
    asked: list[Any] = [prompts] if one else list(prompts)  # type: ignore[arg-type]
    texts = [vocab.to_bytes(text) for text in asked]
    stops = [stop] if isinstance(stop, str | bytes) else list(stop)
    ends = [vocab.to_bytes(s) for s in stops]
    chance = torch.Generator().manual_seed(seed)
    results: list[Generation] = []
    for at in range(0, len(texts), TOGETHER):
        part = [_Text(lm, text) for text in texts[at : at + TOGETHER]]
        while waiting := [text for text in part if text.reason is None]:
            for text, row in zip(waiting, _last(lm, [t.ids for t in waiting]), strict=True):
                text.push(_choose(row, temperature, chance), max_bytes, ends)
        results += [Generation(t.data, t.reason or "length", [], [], t.prompt) for t in part]
    return results[0] if one else results


class _Text:
    """One text in the making."""

    def __init__(self, lm: TokenModel, prompt: bytes) -> None:
        self.lm, self.prompt, self.data = lm, prompt, b""
        self.ids: list[int] = lm.ids_of(prompt).tolist()
        self.begun = len(self.ids)
        self.reason: FinishReason | None = None

    def push(self, token: int, max_bytes: int, ends: Sequence[bytes]) -> None:
        if token == self.lm.eos:
            self.reason = "eos"
            return
        self.ids.append(token)
        self.data = self.lm.tokenizer.decode(self.ids[self.begun :])
        found = [at for end in ends if (at := self.data.find(end)) >= 0]
        if found:
            self.data, self.reason = self.data[: min(found)], "stop"
        elif len(self.data) >= max_bytes:
            self.data, self.reason = self.data[:max_bytes], "length"


@torch.no_grad()
def _last(lm: TokenModel, texts: Sequence[list[int]]) -> Tensor:
    """Logits after the last id of each  # [B, V]."""
    logits = lm.packed_logits(
        [torch.tensor(ids, dtype=torch.int64, device=lm.device) for ids in texts]
    )
    ends = torch.tensor([len(ids) for ids in texts], dtype=torch.int64, device="cpu").cumsum(0) - 1
    last = logits[ends.to(logits.device)].float().cpu()
    last[:, lm.bos] = last[:, lm.bos] if lm.bos == lm.eos else -torch.inf
    return last


def _choose(logits: Tensor, temperature: float, chance: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=chance))
