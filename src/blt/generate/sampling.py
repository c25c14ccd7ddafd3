"""Plain sampling, one full forward per byte: the reference that cached decoding must equal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from blt import vocab

if TYPE_CHECKING:
    from blt.lm import LanguageModel


def stream(
    lm: LanguageModel,
    prompt: vocab.Text = b"",
    *,
    max_bytes: int = 256,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Yield the ids of a continuation, ended by EOS (not yielded) or ``max_bytes``.

    Args:
        lm: a BLT or byte transformer.
        prompt: text or bytes; BOS is put in front.
        max_bytes: how many bytes to write at most.
        temperature: 0 picks the most likely byte.
        top_k: sample among the k most likely only.
        seed: of the sampling.

    Raises:
        ValueError: negative temperature or limit, or top_k below 1.
    """
    if temperature < 0 or max_bytes < 0 or (top_k is not None and top_k < 1):
        raise ValueError("temperature and max_bytes must be at least 0, top_k at least 1")
    generator = torch.Generator().manual_seed(seed)
    ids = vocab.encode(prompt)
    for _ in range(max_bytes):
        logits = lm.logits(ids)[-1].cpu()  # [260]
        # Only bytes and EOS can be written.
        logits[[vocab.BOE, vocab.BOS, vocab.BPE]] = float("-inf")
        token = _choose(logits, temperature, top_k, generator)
        if token == vocab.EOS:
            return
        yield token
        ids = torch.cat((ids, ids.new_tensor([token])))


def generate(lm: LanguageModel, prompt: vocab.Text = b"", **options: object) -> bytes:
    """The bytes that continue ``prompt``; options as for :func:`stream`."""
    return vocab.decode(torch.tensor(list(stream(lm, prompt, **options)), dtype=torch.int64))  # type: ignore[arg-type]


def _choose(
    logits: torch.Tensor, temperature: float, top_k: int | None, generator: torch.Generator
) -> int:
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        logits[logits < logits.topk(top_k).values[-1]] = float("-inf")
    return int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator))
