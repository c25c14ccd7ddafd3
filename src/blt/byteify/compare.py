"""From a token model to a byte model, and how much that is worth: all that ``blt byteify`` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from blt.byteify.hooks import hooks_of
from blt.data.text import heldout_by_source
from blt.errors import UserError
from blt.evals.models import load
from blt.evals.patch_size import patch_size
from blt.files import durable
from blt.files.hub import local_folder
from blt.machine.precision import choose_device, choose_dtype
from blt.scoring.bits import bits_per_byte
from blt.texts.pieces import choose
from blt.train.job import open_text, train_recipe
from blt.train.loop import Latest, OnProgress, Report
from blt.train.recipe import Recipe
from blt.train.run import CHECKPOINT, RECIPE

SCRATCH = "scratch"  # run folder, within that of the byteified model
RESULT = "byteify.json"
Show = Callable[[str], AbstractContextManager[OnProgress]]
Row = dict[str, Any]


def byteify(
    recipe: Recipe, folder: Path, *, resume: bool = False, scratch: bool = False, show: Show
) -> dict[str, Any] | None:
    """Train the BLT of a recipe that byteifies, and compare it with its source.

    All models read the same pieces of ``data.context_bytes``, those that the recipe's evaluations
    read: the same bytes of each document. The source comes first, so that one that cannot be scored
    is known early.

    Args:
        folder: of the run; the result goes to ``byteify.json`` in it.
        resume: go on with it.
        scratch: train a BLT of the same shape with the same recipe from random weights too, in
            ``folder/scratch``, where it goes on if it was left before its end.
        show: called with a name before each training: where its reports go.

    Returns:
        ``heldout_bytes``, ``models`` (a row each), and ``gap_closed``: the share of the bits per
        byte between scratch and source by which the byteified model is better than scratch; None
        where there is no model from scratch, or the source is no better than it. In processes that
        only help to train: None.

    Raises:
        UserError: a source, recipe or run folder that cannot be used, or nothing held out.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    if recipe.byteify is None:
        raise UserError("the recipe has no section byteify; recipes/byteify.toml shows one")
    shaped = hooks_of(recipe).resolve(recipe)
    texts = _heldout(recipe)
    rows: list[Row] = []

    def add(name: str, path: Path, report: Report | None = None) -> None:
        if os.environ.get("RANK", "0") == "0":
            rows.append({"model": name, **_scores(path, recipe, texts), **_training(report)})

    add("source", local_folder(recipe.byteify.source))
    add("byteified", folder / CHECKPOINT, _train(shaped, folder, resume, show("byteified")))
    if scratch:
        path = folder / SCRATCH
        alone, begun = replace(shaped, byteify=None), (path / RECIPE).is_file()
        add("scratch", path / CHECKPOINT, _train(alone, path, begun, show("from scratch")))
    if not rows:
        return None
    bits = {row["model"]: row["bits_per_byte"] for row in rows}
    result = {
        "heldout_bytes": sum(map(len, texts)),
        "models": rows,
        "gap_closed": _gap_closed(bits),
    }
    durable.write_json(folder / RESULT, result, indent=2)
    return result


def _train(
    recipe: Recipe, folder: Path, resume: bool, shown: AbstractContextManager[OnProgress]
) -> Report | None:
    """Returns the last report; None in processes that only help."""
    with shown as show:
        latest = Latest(show)
        train_recipe(recipe, folder, resume, latest, hooks=hooks_of(recipe))
    return latest.report


def _heldout(recipe: Recipe) -> list[bytes]:
    heldout = heldout_by_source(open_text(recipe))
    if not heldout:
        raise UserError("data.heldout: no document is held out to compare on; hold out more")
    each, context = recipe.train.eval_bytes // len(heldout), recipe.data.context_bytes
    return [piece for documents in heldout.values() for piece in choose(documents, each, context)]


def _scores(path: Path, recipe: Recipe, texts: list[bytes]) -> Row:
    model, context = load(path).to(choose_device(recipe.train.device)), recipe.data.context_bytes
    dtype = choose_dtype(recipe.train.precision, model.device)
    return {
        "bits_per_byte": bits_per_byte(model, texts, context_bytes=context, dtype=dtype),
        "bytes_per_patch": patch_size(model, texts, context),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _training(report: Report | None) -> Row:
    """What a model was trained on here; nothing is known of the source."""
    return {
        "training_bytes": None if report is None else report.bytes_seen,
        "training_flops": None if report is None else report.flops,
    }


def _gap_closed(bits: dict[str, float]) -> float | None:
    gap = bits.get("scratch", 0.0) - bits["source"]
    return (bits["scratch"] - bits["byteified"]) / gap if gap > 0 else None
