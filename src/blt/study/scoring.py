"""Bits of every piece of held-out text: what cells and intervals are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from blt.data.text import Source
from blt.evals.patch_size import patch_size
from blt.lm import LanguageModel
from blt.scoring.bits import measured, piece_bits
from blt.study.config import Point
from blt.study.heldout import Heldout
from blt.study.lines import Line
from blt.texts.marked import Marked
from blt.texts.pieces import choose
from blt.train.recipe import Recipe

Pieces = Mapping[str, Mapping[str, Sequence[bytes]]]  # of each text of each kind
DIGITS = 1  # behind the point: a tenth of a bit, of a piece of thousands


def score_line(point: Point, model: LanguageModel, heldout: Heldout) -> Line:
    """What is kept of a run that is compared: bytes per patch, and bits of every piece."""
    size = patch_size(model, heldout.all[::16], point.recipe.data.context_bytes)
    return {"name": point.name, "patch_size": size, "bits": score(model, heldout.pieces)}


def score(model: LanguageModel, kinds: Pieces) -> dict[str, dict[str, list[float]]]:
    """Bits of each piece, by kind and text, in float32 wherever it runs."""
    return {
        kind: {name: _bits(model, pieces) for name, pieces in texts.items()}
        for kind, texts in kinds.items()
    }


def validation(
    model: LanguageModel, sources: Sequence[Source], recipe: Recipe, max_bytes: int
) -> dict[str, Any]:
    """Bits per byte of what each source holds out, and their mean by the sources' weights, or as
    they are read without: by their bytes. None, where a model without finite weights gives no
    number.

    Args:
        max_bytes: of each source, drawn evenly from its held-out documents.
    """
    weights = recipe.data.weights or tuple(source.train.num_bytes for source in sources)
    found = []
    for source in sources:
        pieces = choose(source.heldout, max_bytes, recipe.data.context_bytes)
        if any(isinstance(piece, Marked) for piece in pieces):
            found.append(measured(model, pieces, torch.float32).bits_per_byte)
        else:
            found.append(sum(_bits(model, pieces)) / sum(map(len, pieces)))
    mean = sum(w * bits for w, bits in zip(weights, found, strict=True)) / sum(weights)
    names = [source.name for source in sources]
    by_source = {name: _finite(bits) for name, bits in zip(names, found, strict=True)}
    return {"validation_bits": _finite(mean), "validation": by_source}


def _finite(bits: float) -> float | None:
    return bits if math.isfinite(bits) else None


def _bits(model: LanguageModel, pieces: Sequence[bytes]) -> list[float]:
    return [round(bits, DIGITS) for bits in piece_bits(model, pieces, dtype=torch.float32)]
