"""From a token model to a byte model, and how much that is worth: all that ``blt byteify`` does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from blt.data.text import heldout_by_source
from blt.errors import UserError
from blt.evals.bpb import bits_per_byte, choose
from blt.evals.models import load
from blt.evals.tasks import patch_size
from blt.hub import local_folder
from blt.lm import LanguageModel
from blt.precision import choose_dtype
from blt.train.byteify import resolved
from blt.train.job import open_text, train_recipe
from blt.train.loop import OnProgress
from blt.train.recipe import Recipe
from blt.train.run import CHECKPOINT, RECIPE

SCRATCH = "scratch"  # run folder, within that of the byteified model
RESULT = "byteify.json"
Show = Callable[[str], AbstractContextManager[OnProgress]]


def byteify(
    recipe: Recipe, folder: Path, *, resume: bool = False, scratch: bool = False, show: Show
) -> dict[str, Any] | None:
    """Train the BLT of a recipe that byteifies, and compare it with its source.

    Args:
        folder: of the run; the result goes to ``byteify.json`` in it.
        resume: go on with it.
        scratch: train a BLT of the same shape with the same recipe from random weights too, in
            ``folder/scratch``, where it goes on if it was left before its end.
        show: called with a name before each training: where its reports go.

    Returns:
        what :func:`compare` found; None in processes that only help to train.

    Raises:
        UserError: a source, recipe or run folder that cannot be used.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    if recipe.byteify is None:
        raise UserError("the recipe has no section byteify; recipes/byteify.toml shows one")
    with show("byteified") as reports:
        train_recipe(recipe, folder, resume, reports)
    if scratch:
        alone, path = replace(resolved(recipe)[0], byteify=None), folder / SCRATCH
        with show("from scratch") as reports:
            train_recipe(alone, path, (path / RECIPE).is_file(), reports)
    if os.environ.get("RANK", "0") != "0":
        return None
    result = compare(recipe, folder)
    beside = folder / f".{RESULT}.new"
    beside.write_text(json.dumps(result, indent=2) + "\n")
    os.replace(beside, folder / RESULT)
    return result


def compare(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Held-out bits per byte of the source, of the byteified model and of that from scratch.

    All read the same documents, those that the recipe's evaluations read, in pieces of
    ``data.context_bytes``.

    Returns:
        ``heldout_bytes``, ``models`` (a row each), and ``gap_closed``: the share of the bits per
        byte between scratch and source by which the byteified model is better than scratch; None
        where there is no model from scratch, or the source is no better than it.

    Raises:
        UserError: nothing is held out.
    """
    assert recipe.byteify is not None
    texts = _heldout(recipe)
    paths = {
        "source": local_folder(recipe.byteify.source),
        "byteified": folder / CHECKPOINT,
        "scratch": folder / SCRATCH / CHECKPOINT,
    }
    rows = [
        {"model": name, **_scores(load(path), recipe, texts)}
        for name, path in paths.items()
        if path.is_dir()
    ]
    return {
        "heldout_bytes": sum(map(len, texts)),
        "models": rows,
        "gap_closed": _gap_closed({row["model"]: row["bits_per_byte"] for row in rows}),
    }


def _heldout(recipe: Recipe) -> list[bytes]:
    heldout = heldout_by_source(open_text(recipe))
    if not heldout:
        raise UserError("data.heldout: no document is held out to compare on; hold out more")
    each = recipe.train.eval_bytes // len(heldout)
    return [text for documents in heldout.values() for text in choose(documents, each)]


def _scores(model: LanguageModel, recipe: Recipe, texts: list[bytes]) -> dict[str, Any]:
    context = recipe.data.context_bytes
    dtype = choose_dtype(recipe.train.precision, model.device)
    return {
        "bits_per_byte": bits_per_byte(model, texts, context_bytes=context, dtype=dtype),
        "bytes_per_patch": patch_size(model, texts, context),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _gap_closed(bits: dict[str, float]) -> float | None:
    gap = bits.get("scratch", 0.0) - bits["source"]
    return (bits["scratch"] - bits["byteified"]) / gap if gap > 0 else None
