"""Bits of held-out text, and the passes that drafts save, of models side by side: JSON lines.

    python measure.py TEXT... --models pretrained runs/0.0 runs/0.3

Of each model bits per byte, more or fewer than those of the first one; then text written after
prompts out of the texts, without drafts and with them: global passes saved, with 95 % intervals
over pieces and prompts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import blt
from blt.data import read
from blt.evals.intervals import interval, paired
from blt.generate import Engine, Sampling
from blt.lm import LanguageModel
from blt.scoring.bits import piece_bits
from blt.texts.pieces import drawn

PROMPTS, PROMPT_BYTES, NEW_BYTES, SCORED_BYTES = 32, 200, 300, 262144
DRAFTS = (8, 16)
Found = dict[str, Any]


def load(name: str) -> LanguageModel:
    """A model folder, that of a run, or the model in the package."""
    checkpoint = Path(name) / "checkpoint"
    return blt.load(checkpoint if checkpoint.is_dir() else name)


def bits(lm: LanguageModel, pieces: Sequence[bytes], first: list[float]) -> Found:
    """Bits per byte, and the share by which they are more than those of the first model."""
    own, sizes = piece_bits(lm, pieces), list(map(len, pieces))
    first = first or own
    more = paired(first, own, sizes).ratio
    found = interval(own, sizes)
    return {"bits_per_byte": vars(found), "to_first": vars(more), "pieces": own}


def writing(lm: LanguageModel, prompts: Sequence[bytes], temperature: float) -> Found:
    """Global passes for the same number of bytes, without drafts and with them."""
    engine = Engine(lm, max_batch=1, precision="float32")
    sampling = Sampling(max_bytes=NEW_BYTES, ignore_eos=True, temperature=temperature)
    found: Found = {}
    plain: list[int] = []
    for drafts in (0, *DRAFTS):
        calls, drafted, accepted = [], 0, 0
        for prompt in prompts:
            before = engine.model.counts.global_calls
            result = engine.submit(prompt, sampling, draft_bytes=drafts).result()
            calls.append(engine.model.counts.global_calls - before)
            drafted, accepted = drafted + result.drafted, accepted + result.accepted
        plain = plain or calls
        saved = interval([a - b for a, b in zip(plain, calls, strict=True)], plain)
        found[f"{drafts} drafts"] = {
            "passes": sum(calls),
            "saved": vars(saved),
            "accepted": accepted / max(1, drafted),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--models", nargs="+", required=True)
    given = parser.parse_args()
    documents = read(given.texts).documents
    pieces = list(chain.from_iterable(drawn(documents, SCORED_BYTES, 2048)))
    prompts = [piece[:PROMPT_BYTES] for piece in pieces[:: len(pieces) // PROMPTS][:PROMPTS]]
    first: list[float] = []
    for name in given.models:
        lm = load(name)
        line: Found = {"model": Path(name).name, **bits(lm, pieces, first)}
        first = first or line["pieces"]
        del line["pieces"]
        for temperature in (0.0, 0.8):
            line[f"temperature {temperature}"] = writing(lm, prompts, temperature)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
