"""From a recipe to a trained model: everything that ``blt train`` does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from blt.data.heldout import Split, split
from blt.data.loader import Loader
from blt.data.sources import Corpus, read
from blt.errors import UserError
from blt.lm import BLT, ByteLM, LanguageModel, load
from blt.model.byte_transformer import ByteTransformer
from blt.model.config import Config
from blt.patching import PatchingConfig
from blt.pretrained import load_patcher, load_shipped, save_patching
from blt.train.calibration import SAMPLE_BYTES, calibrate, mean_patch_size
from blt.train.loop import OnProgress, fit
from blt.train.precision import choose_device, choose_dtype
from blt.train.recipe import DataConfig, Recipe
from blt.train.run import RunFolder, open_run

PRETRAINED = "pretrained"
PATCH_SAMPLE = 65536  # bytes of held-out text that the patch size is reported on


def train_recipe(
    recipe: Recipe,
    run_folder: str | os.PathLike[str],
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> LanguageModel:
    """Train the model of ``recipe`` and leave it in ``run_folder/checkpoint``.

    Args:
        run_folder: new or empty; with ``resume``, one that was left before its end.
        on_progress: called with every report of :func:`blt.train.loop.fit`.

    Returns:
        the trained model, ready to use.

    Raises:
        UserError: bad text, recipe, entropy model or run folder; says what, where, the way out.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    start = time.monotonic()
    entropy_model = load_entropy_model(recipe.entropy_model)
    if entropy_model is not None and recipe.model is not None:
        shape = entropy_model.config
        recipe = replace(recipe, model=replace(recipe.model, entropy_model=shape))
    choose_device(recipe.train.device)  # before anything is written
    corpus = read(recipe.data.sources, recipe.data.max_bytes)
    parts = split(corpus.documents, recipe.data.heldout)
    run = open_run(run_folder, recipe, resume=resume)
    model = _model(recipe, run, parts, entropy_model)
    if not run.has_checkpoint:
        run.log({"event": "data", **describe(corpus, parts)})
    fit(
        model,
        loader(parts.train, recipe.data, recipe.seed),
        recipe.train,
        heldout=parts.heldout,
        run=run,
        resume=resume,
        on_progress=on_progress,
        spent=0.0 if run.has_checkpoint else time.monotonic() - start,
        # A BLT's entropy model alone is several times faster than all of it.
        score_after=PATCH_SAMPLE // 4 if isinstance(model, BLT) else PATCH_SAMPLE + SAMPLE_BYTES,
    )
    _report_patches(model, recipe, run, parts)
    return model


def build_blt(config: Config, entropy_model: ByteTransformer | None, seed: int = 0) -> BLT:
    """A new BLT around a trained entropy model, whose shape replaces ``config.entropy_model``."""
    torch.manual_seed(seed)
    shape = None if entropy_model is None else entropy_model.config
    model = BLT(replace(config, entropy_model=shape))
    if entropy_model is not None and model.entropy_model is not None:
        model.entropy_model.load_state_dict(entropy_model.state_dict())
    return model


def loader(documents: Sequence[bytes], data: DataConfig, seed: int) -> Loader:
    """Training batches as a recipe asks for them."""
    return Loader(
        documents, batch_bytes=data.batch_bytes, context_bytes=data.context_bytes, seed=seed
    )


def load_entropy_model(name: str | None) -> ByteTransformer | None:
    """The entropy model in a folder, or the shipped one if it is called "pretrained".

    Raises:
        UserError: no model there, or one that has no entropy model.
    """
    if name is None:
        return None
    found = (load_shipped() if name == PRETRAINED else load_patcher(name)).entropy_model
    if found is None:
        raise UserError(f"entropy_model: {name}: the model there has no entropy model")
    return found


def describe(corpus: Corpus, parts: Split) -> dict[str, Any]:
    """Counts for the metrics."""
    return {
        "train_documents": len(parts.train),
        "train_bytes": sum(map(len, parts.train)),
        "heldout_documents": len(parts.heldout),
        "heldout_bytes": sum(map(len, parts.heldout)),
        "broken_lines": len(corpus.broken),
        "broken": corpus.broken[:10],
    }


def _model(
    recipe: Recipe, run: RunFolder, parts: Split, entropy_model: ByteTransformer | None
) -> LanguageModel:
    """The checkpoint's model, or a new one, on the device to train on."""
    device = choose_device(recipe.train.device)
    if run.has_checkpoint:
        model: LanguageModel = load(run.checkpoint)
        if isinstance(model, BLT) and model.entropy_model is not None:
            model.entropy_model.requires_grad_(False)
    elif recipe.byte_model is not None:
        torch.manual_seed(recipe.seed)
        model = ByteLM(recipe.byte_model)
    else:
        config = recipe.model or Config()
        if entropy_model is not None:
            entropy_model.to(device)
            patching = _patching(recipe, config.patching, entropy_model, parts)
            config = replace(config, patching=patching)
        model = build_blt(config, entropy_model, recipe.seed)
    return model.to(device)


def _patching(
    recipe: Recipe, patching: PatchingConfig, entropy_model: ByteTransformer, parts: Split
) -> PatchingConfig:
    """The recipe's rule, calibrated on training text if it asks for that."""
    if recipe.target_patch_size == 0 or not patching.needs_entropies:
        return patching
    return calibrate(
        entropy_model,
        parts.train,
        recipe.target_patch_size,
        patching,
        context_bytes=recipe.data.context_bytes,
        dtype=choose_dtype(recipe.train.precision, next(entropy_model.parameters()).device),
    )


def _report_patches(model: LanguageModel, recipe: Recipe, run: RunFolder, parts: Split) -> None:
    """Log the patch size on held-out text; an entropy model first gets a θ of its own."""
    if isinstance(model, BLT):
        entropy_model, patching = model.entropy_model, model.config.patching
    elif isinstance(model, ByteLM):
        entropy_model, patching = model, _patching(recipe, PatchingConfig(), model, parts)
        save_patching(run.checkpoint, patching)
    size = mean_patch_size(
        patching,
        entropy_model,
        parts.heldout,
        context_bytes=recipe.data.context_bytes,
        sample_bytes=PATCH_SAMPLE,
        dtype=choose_dtype(recipe.train.precision, model.device),
    )
    run.log(
        {
            "event": "patching",
            "rule": patching.rule,
            "threshold": patching.threshold,
            "heldout_patch_size": size,
        }
    )
