"""From a token model to a byte model, and how much that is worth: all that ``blt byteify`` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from blt.byteify.hooks import hooks_of
from blt.data.text import heldout_by_source
from blt.errors import UserError, require
from blt.evals.intervals import Interval, documents_of, interval
from blt.evals.models import load
from blt.evals.patch_size import patch_size
from blt.files import durable
from blt.files.hub import local_folder
from blt.machine.precision import choose_device, choose_dtype
from blt.scoring.bits import piece_bits
from blt.texts.pieces import drawn
from blt.train.corpus import open_text
from blt.train.job import train_recipe
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
        scratch: train a BLT of the same shape and patches from random weights too, with the same
            recipe and budget, in ``folder/scratch``, where it goes on if it was left before its
            end.
        show: called with a name before each training: where its reports go.

    Returns:
        ``heldout_bytes``, ``models`` (a row each), and ``gap_closed``: the share of the bits per
        byte between scratch and source by which the byteified model is better than scratch, with
        where it lies when pieces of text are drawn again (``gap_closed_interval``); None where
        there is no model from scratch, or the source is no better than it. In processes that only
        help to train: None.

    Raises:
        UserError: a source, recipe or run folder that cannot be used, or nothing held out.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    if recipe.byteify is None:
        raise UserError("the recipe has no section byteify; recipes/byteify.toml shows one")
    shaped = hooks_of(recipe).resolve(recipe)
    documents = _heldout(recipe)
    texts = [piece for pieces in documents for piece in pieces]
    rows: list[Row] = []
    bits: dict[str, list[float]] = {}  # of each piece

    def add(name: str, path: Path, report: Report | None = None) -> None:
        if os.environ.get("RANK", "0") == "0":
            bits[name], row = _scores(path, recipe, texts)
            rows.append({"model": name, **row, **_training(report)})

    add("source", local_folder(recipe.byteify.source))
    add("byteified", folder / CHECKPOINT, _train(shaped, folder, resume, show("byteified")))
    if scratch:
        path = folder / SCRATCH
        alone = replace(shaped, byteify=replace(recipe.byteify, scratch=True))
        begun = (path / RECIPE).is_file()
        add("scratch", path / CHECKPOINT, _train(alone, path, begun, show("from scratch")))
    if not rows:
        return None
    closed = _gap_closed(bits, documents_of(documents)) if scratch else None
    result = {
        "heldout_bytes": sum(map(len, texts)),
        "models": rows,
        "gap_closed": None if closed is None else closed.value,
        "gap_closed_interval": None if closed is None else [closed.low, closed.high],
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


def _heldout(recipe: Recipe) -> list[list[bytes]]:
    """The pieces of each document, as the training's evaluations draw them from each source."""
    heldout = heldout_by_source(open_text(recipe))
    if not heldout:
        raise UserError("data.heldout: no document is held out to compare on; hold out more")
    each, context = recipe.train.eval_bytes // len(heldout), recipe.data.context_bytes
    require(
        each > 0,
        f"train.eval_bytes: {recipe.train.eval_bytes} are none for each of {len(heldout)} sources",
    )
    return [pieces for texts in heldout.values() for pieces in drawn(texts, each, context)]


def _scores(path: Path, recipe: Recipe, texts: list[bytes]) -> tuple[list[float], Row]:
    """Bits of each piece, and a row about all of them."""
    model, context = load(path).to(choose_device(recipe.train.device)), recipe.data.context_bytes
    dtype = choose_dtype(recipe.train.precision, model.device)
    bits = piece_bits(model, texts, dtype)
    return bits, {
        "bits_per_byte": sum(bits) / sum(map(len, texts)),
        "bytes_per_patch": patch_size(model, texts, context, dtype),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _training(report: Report | None) -> Row:
    """What a model was trained on here; nothing is known of the source."""
    return {
        "training_bytes": None if report is None else report.bytes_seen,
        "training_flops": None if report is None else report.flops,
    }


def _gap_closed(bits: dict[str, list[float]], strata: list[int]) -> Interval | None:
    source, byteified, scratch = (np.array(bits[n]) for n in ("source", "byteified", SCRATCH))
    if scratch.sum() <= source.sum():
        return None
    return interval(scratch - byteified, scratch - source, strata)
