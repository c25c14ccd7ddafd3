"""How much of what a model writes is not UTF-8, and what does it cost to write nothing else?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from blt import vocab
from blt.evals.rows import Measured, Row
from blt.generate import Generation
from blt.generate.utf8 import WHOLE, after, forbidden, state_of
from blt.lm import LanguageModel, TokenModel
from blt.tokens.tokenizer import readable_runs

SAMPLES, SAMPLE_BYTES = 64, 256
PROMPT_BYTES = 128  # of each document that is continued
AMPLE = 4  # bytes of room: no character is longer
NO_MASK, MASK, TOKENS = "none", "valid_utf8", "none, tokens have no mask"


def prompts(documents: Sequence[bytes], count: int) -> list[bytes]:
    """Beginnings of documents, whole characters; over again where there are too few."""
    starts = [_whole(text[:PROMPT_BYTES]) for text in documents] or [b""]
    return [starts[index % len(starts)] for index in range(count)]


def rows(lm: LanguageModel, after_what: str, begun: Sequence[bytes]) -> Iterator[Measured]:
    """Samples at temperature 1 of what follows ``begun``: as the model writes, and masked.

    A model over tokens cannot be masked byte by byte, and has one row, which says so.
    """
    if isinstance(lm, TokenModel):
        yield _row(after_what, TOKENS, write(lm, begun), None)
        return
    yield _row(after_what, NO_MASK, write(lm, begun), None)
    masked = write(lm, begun, valid_utf8=True)
    pairs = [(text, sample.data) for text, sample in zip(begun, masked, strict=True)]
    yield _row(after_what, MASK, masked, masked_mass(lm, pairs))


def write(lm: LanguageModel, begun: Sequence[bytes], **how: bool) -> list[Generation]:
    """One continuation of each text, at temperature 1."""
    return lm.generate(list(begun), max_bytes=SAMPLE_BYTES, temperature=1.0, **how)


def validity(sample: Generation) -> tuple[int, int]:
    """Invalid runs of bytes, and characters with those; one that the limit cut off is neither."""
    data = _whole(sample.data) if sample.finish_reason == "length" else sample.data
    runs = list(readable_runs(data))
    wrong = sum(isinstance(run, bytes) for run in runs)
    return wrong, wrong + sum(len(run) for run in runs if isinstance(run, str))


def masked_mass(lm: LanguageModel, pairs: Sequence[tuple[bytes, bytes]]) -> float:
    """Mean probability that the mask takes away before each byte written after a prompt.

    Of bytes, and of ending within a character; that the room ends is not the model's doing.
    """
    tables: dict[object, np.ndarray] = {}
    total, count = 0.0, 0
    for prompt, data in pairs:
        logits = lm.logits(vocab.encode(prompt + data))[len(prompt) : len(prompt) + len(data)]
        allowed = torch.ones(vocab.VOCAB_SIZE, dtype=torch.bool)
        allowed[[vocab.BOE, vocab.BOS, vocab.BPE]] = False  # never written, masked or not
        shares = logits.float().cpu().masked_fill(~allowed, -torch.inf).softmax(-1).double().numpy()
        rest = state_of(prompt)
        for byte, share in zip(data, shares, strict=True):
            if rest not in tables:
                tables[rest] = forbidden(rest, AMPLE)
            total += float(share[tables[rest]].sum())
            rest = after(rest, byte) or WHOLE
        count += len(data)
    return total / max(1, count)


def _row(after_what: str, mask: str, samples: Sequence[Generation], mass: float | None) -> Measured:
    """The share of characters that are none, over all samples, which are drawn again."""
    counts = [validity(sample) for sample in samples]
    wrong, characters = [list(column) for column in zip(*counts, strict=True)]
    row: Row = {
        "after": after_what,
        "mask": mask,
        "samples": len(samples),
        "characters": sum(characters),
        "invalid_characters": sum(wrong) / max(1, sum(characters)),
        "invalid_samples": sum(bad > 0 for bad in wrong) / max(1, len(samples)),
        "masked_per_byte": mass,
    }
    return Measured(row, "invalid_characters", wrong, characters)


def _whole(data: bytes) -> bytes:
    """Without a character that has only begun."""
    while data and state_of(data):
        data = data[:-1]
    return data
