"""From a recipe to a trained model: everything that ``blt train`` does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from blt.data.loader import Loader, loader_of
from blt.data.shards import ShardSegments
from blt.data.text import Source, heldout_by_source, open_sources, weighted_sources
from blt.errors import UserError
from blt.lm import BLT, ByteLM, LanguageModel, load
from blt.model.byte_transformer import ByteTransformer
from blt.model.config import Config
from blt.patching import PatchingConfig
from blt.precision import choose_device, choose_dtype
from blt.pretrained import find_entropy_model, identity, save_patching
from blt.token_lm import TokenLM
from blt.tokens import ByteTokenizer
from blt.train.calibration import SAMPLE_BYTES, calibrate, mean_patch_size
from blt.train.loop import OnProgress, fit
from blt.train.opening import open_run
from blt.train.parallel import compile_layers, recompute
from blt.train.parallel import start as parallel_of
from blt.train.recipe import DataConfig, Recipe
from blt.train.run import RunFolder

TOKENIZER_BYTES = 2**25  # of each source, to train a tokenizer on
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
    entropy_model = find_entropy_model(recipe.entropy_model)
    if entropy_model is not None and recipe.model is not None:
        shape = entropy_model.config
        recipe = replace(recipe, model=replace(recipe.model, entropy_model=shape))
    parallel = parallel_of(recipe.train.device)  # before anything is written
    sources = _open(recipe)
    check_entropies(sources, recipe, entropy_model)
    run = open_run(run_folder, recipe, resume=resume, parallel=parallel)
    model = _model(recipe, run, sources, entropy_model)
    if recipe.train.recompute:
        recompute(model)
    if recipe.train.compile:
        compile_layers(model)
    parallel.shard(model)
    if not run.has_checkpoint:
        run.forget_after(-1)  # of a run that was killed before its first checkpoint
        for source in sources:
            run.log({"event": "data", "source": source.name, **source.facts})
    fit(
        model,
        Loader(
            [source.train for source in sources],
            recipe.data.weights,
            batch_bytes=recipe.data.batch_bytes,
            context_bytes=recipe.data.context_bytes,
            seed=recipe.seed,
            rank=parallel.rank,
            world=parallel.world,
        ),
        recipe.train,
        heldout=heldout_by_source(sources),
        run=run,
        resume=resume,
        on_progress=on_progress,
        spent=0.0 if run.has_checkpoint else time.monotonic() - start,
        # A BLT's entropy model alone is several times faster than all of it.
        score_after=PATCH_SAMPLE // 4 if isinstance(model, BLT) else PATCH_SAMPLE + SAMPLE_BYTES,
        parallel=parallel,
    )
    _report_patches(model, recipe, run, sources)
    return model


def _open(recipe: Recipe) -> list[Source]:
    data = recipe.data
    opened = weighted_sources if data.weights else open_sources
    return opened(
        data.sources,
        heldout=data.heldout,
        max_bytes=data.max_bytes,
        context_bytes=data.context_bytes,
        heldout_bytes=max(PATCH_SAMPLE, recipe.train.eval_bytes),
    )


def check_entropies(
    sources: Sequence[Source], recipe: Recipe, entropy_model: ByteTransformer | None
) -> None:
    """Stored entropies must be those that the recipe's entropy model would give.

    Raises:
        UserError: another model's, or with another reset; names the folder.
    """
    if recipe.model is None or not recipe.model.patching.needs_entropies:
        return
    for source in sources:
        stored = source.train.entropy_model if isinstance(source.train, ShardSegments) else None
        if stored is None or not isinstance(source.train, ShardSegments):
            continue
        if entropy_model is None or identity(entropy_model) != stored:
            raise UserError(
                f"{source.name}: was prepared with another entropy model than "
                f"{recipe.entropy_model}; prepare it again with that one, or name the other in the "
                "recipe"
            )
        reset = source.train.manifest["options"]["newline_reset"]
        if reset != recipe.model.patching.newline_reset:
            raise UserError(
                f"{source.name}: was prepared with newline_reset {reset}; prepare it again, or set "
                "model.patching.newline_reset to the same"
            )


def build_blt(config: Config, entropy_model: ByteTransformer | None, seed: int = 0) -> BLT:
    """A new BLT around a trained entropy model, whose shape replaces ``config.entropy_model``."""
    torch.manual_seed(seed)
    shape = None if entropy_model is None else entropy_model.config
    model = BLT(replace(config, entropy_model=shape))
    if entropy_model is not None and model.entropy_model is not None:
        model.entropy_model.load_state_dict(entropy_model.state_dict())
    return model


def loader(documents: Sequence[bytes], data: DataConfig, seed: int) -> Loader:
    """Training batches of documents in memory, as a recipe asks for them."""
    return loader_of(
        documents, batch_bytes=data.batch_bytes, context_bytes=data.context_bytes, seed=seed
    )


def _model(
    recipe: Recipe, run: RunFolder, sources: Sequence[Source], entropy_model: ByteTransformer | None
) -> LanguageModel:
    """The checkpoint's model, or a new one, on the device to train on."""
    device = choose_device(recipe.train.device)
    if run.has_checkpoint:
        model: LanguageModel = load(run.checkpoint)
        _check_shape(model, recipe, run)
        if isinstance(model, BLT) and model.entropy_model is not None:
            model.entropy_model.requires_grad_(False)
    elif recipe.token_model is not None:
        torch.manual_seed(recipe.seed)
        model = TokenLM(recipe.token_model, _tokenizer(recipe, sources))
    elif recipe.byte_model is not None:
        torch.manual_seed(recipe.seed)
        model = ByteLM(recipe.byte_model)
    else:
        config = recipe.model or Config()
        if entropy_model is not None:
            entropy_model.to(device)
            patching = _patching(recipe, config.patching, entropy_model, sources)
            config = replace(config, patching=patching)
        model = build_blt(config, entropy_model, recipe.seed)
    return model.to(device)


def _check_shape(model: LanguageModel, recipe: Recipe, run: RunFolder) -> None:
    """A checkpoint that was put there from another run may not be what the recipe says."""
    wanted, found = recipe.model or recipe.byte_model or recipe.token_model, model.config
    if isinstance(wanted, Config) and isinstance(found, Config):
        found = replace(found, patching=wanted.patching)  # its threshold was calibrated
    if found != wanted:
        raise UserError(
            f"{run.checkpoint}: is of another shape than the recipe of its run; put its own "
            "checkpoint back, or start another run"
        )


def _tokenizer(recipe: Recipe, sources: Sequence[Source]) -> ByteTokenizer:
    """The recipe's, or one trained on the training text."""
    assert recipe.token_model is not None
    if recipe.tokenizer is None:
        texts = [text for source in sources for text in source.sample(TOKENIZER_BYTES)]
        return ByteTokenizer.train(texts, recipe.token_model.vocab_size)
    try:
        return ByteTokenizer(Path(recipe.tokenizer).read_text())
    except (OSError, UserError) as error:
        raise UserError(f"tokenizer: {recipe.tokenizer}: {error}") from None


def _patching(
    recipe: Recipe,
    patching: PatchingConfig,
    entropy_model: ByteTransformer,
    sources: Sequence[Source],
) -> PatchingConfig:
    """The recipe's rule, calibrated on training text if it asks for that."""
    if recipe.target_patch_size == 0 or not patching.needs_entropies:
        return patching
    return calibrate(
        entropy_model,
        [text for source in sources for text in source.sample(SAMPLE_BYTES)],
        recipe.target_patch_size,
        patching,
        context_bytes=recipe.data.context_bytes,
        dtype=choose_dtype(recipe.train.precision, next(entropy_model.parameters()).device),
    )


def _report_patches(
    model: LanguageModel, recipe: Recipe, run: RunFolder, sources: Sequence[Source]
) -> None:
    """Log the patch size on held-out text; an entropy model first gets a θ of its own."""
    if isinstance(model, TokenLM):
        return
    if isinstance(model, BLT):
        entropy_model, patching = model.entropy_model, model.config.patching
    elif isinstance(model, ByteLM):
        entropy_model, patching = model, _patching(recipe, PatchingConfig(), model, sources)
        if run.parallel.main:
            save_patching(run.checkpoint, patching)
    size = mean_patch_size(
        patching,
        entropy_model,
        [text for source in sources for text in source.heldout],
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
