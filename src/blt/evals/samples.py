"""How often is what a model writes not UTF-8?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blt.generate.utf8 import state_of
from blt.lm import LanguageModel
from blt.tokens.tokenizer import readable_runs

SAMPLES, SAMPLE_BYTES = 64, 256
PROMPT_BYTES = 128  # of each document that is continued


@dataclass(frozen=True)
class Validity:
    """Counts of samples at temperature 1."""

    samples: float  # share of them with something in it that is not UTF-8
    characters: float  # share of invalid runs of bytes among characters
    bytes: int


def prompts(documents: Sequence[bytes], count: int) -> list[bytes]:
    """Beginnings of documents, whole characters; over again where there are too few."""
    starts = [_whole(text[:PROMPT_BYTES]) for text in documents] or [b""]
    return [starts[index % len(starts)] for index in range(count)]


def validity(lm: LanguageModel, begun: Sequence[bytes]) -> Validity:
    """Continue each of ``begun`` once; a character that the limit cut off does not count."""
    written = lm.generate(list(begun), max_bytes=SAMPLE_BYTES, temperature=1.0)
    bad_samples = bad = characters = size = 0
    for sample in written:
        data = _whole(sample.data) if sample.finish_reason == "length" else sample.data
        runs = list(readable_runs(data))
        wrong = sum(isinstance(run, bytes) for run in runs)
        characters += wrong + sum(len(run) for run in runs if isinstance(run, str))
        bad += wrong
        bad_samples += wrong > 0
        size += len(data)
    return Validity(bad_samples / max(1, len(written)), bad / max(1, characters), size)


def _whole(data: bytes) -> bytes:
    """Without a character that has only begun."""
    while data and state_of(data):
        data = data[:-1]
    return data
