"""Bits per byte and patches of models side by side, on the same held-out text of every kind.

    python -m tools.score blt entropy_model old=runs/old/checkpoint \\
        --data ../shared/data --out results/pretrained/scores.jsonl
    python -m tools.score --table results/pretrained/scores.jsonl

A model is a name in the package (blt, entropy_model) or a folder; ``LABEL=`` before it is what it
is called. Of every kind the same bytes are drawn for all models, evenly from the documents that no
recipe trains on (:mod:`tools.heldout`), and each reads them in pieces of its own context: 2048
bytes a BLT, 1024 a byte model. A line is a model and a kind:

* ``bits_per_byte``, with the ends of its 95 % interval, of pieces drawn again within documents
  (:mod:`blt.evals.intervals`); of one piece alone there is none. All in float32;
* ``documents`` and ``bytes`` that were scored, of ``of_documents`` and ``of_bytes`` held out;
* ``bytes_per_patch`` of what was scored; of parallel text ``patches_per_sentence`` of the first
  ``sentences``, the same in every language;
* ``sha256`` of the model's weights and ``text`` of what was scored, ``rule`` with its θ.

Lines are added as they come; what has one is not scored again. --table prints them as Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence

import torch

from blt.evals.intervals import documents_of, interval
from blt.machine.precision import choose_device
from blt.scoring.bits import piece_bits
from blt.texts.pieces import drawn, segments
from tools.asked import parser, positive, run
from tools.heldout import Text, texts
from tools.lines import Line, append, read_lines, rounded
from tools.models import CONTEXT, Model, open_model
from tools.parallel import lengths_of, patch_lengths
from tools.score_table import table

LIMIT = 65536  # bytes of each kind
SENTENCES = 256  # of parallel text, whose patches are counted
KEY = ("sha256", "rule", "context", "kind", "text", "sentences")  # what a line is about


def todo(model: Model, text: Text, limit: int, count: int) -> tuple[Line, list[list[bytes]]]:
    """What a line is about, and the pieces of each document that it is to be of.

    Args:
        limit: bytes to score.
        count: sentences whose patches are to be counted.
    """
    pieces = drawn(text.documents, limit, max(CONTEXT.values()))  # the same for every model
    line: Line = {
        **model.about,
        "context": model.context,
        "kind": text.kind,
        "text": hashlib.sha256(b"\0".join(p for of in pieces for p in of)).hexdigest(),
        "documents": len(pieces),
        "bytes": sum(len(piece) for of in pieces for piece in of),
        "of_documents": len(text.documents),
        "of_bytes": sum(map(len, text.documents)),
        "sentences": None if text.sentences is None else len(text.sentences[:count]),
    }
    return line, [segments(of, model.context) for of in pieces]


def score(model: Model, text: Text, pieces: Sequence[Sequence[bytes]], count: int) -> Line:
    """Bits per byte of pieces, listed by document, with an interval; and patches."""
    begun, flat = time.perf_counter(), [piece for of in pieces for piece in of]
    lengths = lengths_of(model.patcher)
    bits = piece_bits(model.lm, flat, torch.float32)
    found = interval(bits, [len(piece) for piece in flat], documents_of(pieces))
    known = len(flat) > 1  # of one piece alone nothing is known
    line: Line = {
        "bits_per_byte": found.value,
        "low": found.low if known else None,
        "high": found.high if known else None,
        "bytes_per_patch": sum(map(len, flat)) / sum(len(lengths(piece)) for piece in flat),
        "patches_per_sentence": None,
    }
    if text.sentences is not None:
        sentences = text.sentences[:count]
        patches = len(patch_lengths(lengths, sentences, model.context))
        line["patches_per_sentence"] = patches / len(sentences)
    return {**line, "seconds": time.perf_counter() - begun}


def key(line: Line) -> tuple[object, ...]:
    """What a line is about: who has the same has the same numbers."""
    return tuple(line[name] for name in KEY)


def measure(given: argparse.Namespace) -> None:
    """Add a line for each model and kind that has none."""
    device = str(choose_device(given.device, "--device"))
    models = [open_model(model, device) for model in given.models]
    done = {key(line) for line in read_lines(given.out)}
    for text in texts(given.data, given.kinds):
        for model in models:
            line, pieces = todo(model, text, given.max_bytes, given.sentences)
            if key(line) not in done:
                line |= score(model, text, pieces, given.sentences)
                append(given.out, line)
                done.add(key(line))
                shown = ("model", "kind", "bytes", "bits_per_byte", "bytes_per_patch", "seconds")
                print(json.dumps({name: rounded(line)[name] for name in shown}), flush=True)


def main(words: Sequence[str] | None = None) -> None:
    asked = parser("tools.score", __doc__)
    asked.add_argument("--max-bytes", type=positive, default=LIMIT, help="of each kind")
    asked.add_argument("--sentences", type=positive, default=SENTENCES, help="of each language")
    asked.add_argument("--kinds", nargs="+", default=(), metavar="WORD", help="only such kinds")
    run(asked, measure, table, words)


if __name__ == "__main__":
    main()
