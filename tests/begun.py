"""What trainings say of the model that they began from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from blt.data.text import heldout_by_source
from blt.lm import LanguageModel
from blt.texts.pieces import choose
from blt.train import Recipe
from blt.train.corpus import open_text


def begun(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "init.json").read_text())
    return found


def changed(run: Path) -> dict[str, Any]:
    return {one["key"]: (one["was"], one["is"]) for one in begun(run)["changed"]}


def scored(model: LanguageModel, recipe: Recipe) -> float:
    """Independent of the training: one text after the other, each in one piece."""
    texts = [t for held in heldout_by_source(open_text(recipe)).values() for t in held]
    pieces = choose(texts, recipe.train.eval_bytes, recipe.data.context_bytes)
    nats = sum(model.nats([piece]) for piece in pieces)
    return nats / sum(map(len, pieces)) / float(torch.log(torch.tensor(2.0)))
