"""The model that a recipe asks for: new, with its patching calibrated, or that of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blt.data.text import Source
from blt.errors import UserError
from blt.lm import BLT, ByteLM, LanguageModel, TokenLM, load
from blt.machine.precision import choose_device, choose_dtype
from blt.model.config import Config
from blt.model.embedding import NgramTables, crowded, rows_of_letters
from blt.model.transformer import CausalTransformer
from blt.patching import PatchingConfig
from blt.patching.calibration import LOOKUP_BYTES, calibrate, learn_lookup_table
from blt.patching.patcher import SAMPLE_BYTES, OnShare
from blt.tokens.tokenizer import ByteTokenizer, tokenizers_library
from blt.train.hooks import Hooks
from blt.train.lora import resumed
from blt.train.mix import training_sample
from blt.train.recipe import Recipe
from blt.train.run import RunFolder
from blt.train.sections import DataConfig

log = logging.getLogger("blt")
OnPrepare = Callable[[str, float], None]  # what is done before the first step, and 0..1 of it
TOKENIZER_BYTES = 2**24  # of training text, by the weights of its sources, that BPE learns from
TOKENIZER_PIECE = 2**16


def model_of(
    recipe: Recipe,
    run: RunFolder,
    sources: Sequence[Source],
    entropy_model: CausalTransformer | None,
    on_prepare: OnPrepare | None = None,
    hooks: Hooks | None = None,
) -> LanguageModel:
    """The checkpoint's model, or a new one, on the device to train on.

    Args:
        on_prepare: called while its rule is calibrated, or its table learned.
        hooks: that may teach a table.
    """
    device = choose_device(recipe.train.device)
    if run.has_checkpoint:
        adapted = recipe.lora is not None
        model: LanguageModel = resumed(run.checkpoint) if adapted else load(run.checkpoint)
        _check_shape(model, recipe, run)
        if isinstance(model, BLT) and model.entropy_model is not None:
            model.entropy_model.requires_grad_(False)
    elif recipe.token_model is not None:
        torch.manual_seed(recipe.seed)
        model = TokenLM(recipe.token_model, _tokenizer(recipe, sources))
        _tables_at_zero(model)
    elif recipe.byte_model is not None:
        torch.manual_seed(recipe.seed)
        model = ByteLM(recipe.byte_model)
        _tables_at_zero(model)
    else:
        hooks = hooks or Hooks()
        model = _new_blt(recipe, sources, entropy_model, device, on_prepare, hooks)
    return model.to(device)


def build_blt(config: Config, entropy_model: CausalTransformer | None, seed: int = 0) -> BLT:
    """A new BLT around a trained entropy model, whose shape replaces ``config.entropy_model``.

    Hash tables begin at zero: n-grams that training never showed then add nothing, where random
    rows would drown the byte's own embedding.
    """
    torch.manual_seed(seed)
    shape = None if entropy_model is None else entropy_model.config
    model = BLT(replace(config, entropy_model=shape))
    _tables_at_zero(model)
    if entropy_model is not None and model.entropy_model is not None:
        model.entropy_model.load_state_dict(entropy_model.state_dict())
    return model


def _tables_at_zero(model: nn.Module) -> None:
    """So that n-grams that training never shows add nothing."""
    for module in model.modules():
        if isinstance(module, NgramTables):
            nn.init.zeros_(module.ngram)
            if size := crowded(module.sizes, module.functions, module.rows):
                log.warning(
                    "hash_rows %d: %d-grams of letters fall on %d rows only; with a prime, such "
                    "as 20011, 50021, 100003 or 500009, they are spread over all",
                    *(module.rows, size, rows_of_letters(size, module.rows)),
                )


def _new_blt(
    recipe: Recipe,
    sources: Sequence[Source],
    entropy_model: CausalTransformer | None,
    device: torch.device,
    on_prepare: OnPrepare | None,
    hooks: Hooks,
) -> BLT:
    """Its rule calibrated, or its table learned, on training text."""
    config = recipe.model or Config()
    if entropy_model is not None:
        entropy_model.to(device)
    if recipe.learns_table:
        return with_table(recipe, config, entropy_model, sources, on_prepare, hooks)
    if entropy_model is None:
        return build_blt(config, None, recipe.seed)
    patching = calibrated(recipe, config.patching, entropy_model, sources, on_prepare)
    return build_blt(replace(config, patching=patching), entropy_model, recipe.seed)


def with_table(
    recipe: Recipe,
    config: Config,
    entropy_model: CausalTransformer | None,
    sources: Sequence[Source],
    on_prepare: OnPrepare | None,
    hooks: Hooks,
) -> BLT:
    """A new BLT whose table the hooks or the entropy model taught; or else, counts of bytes."""
    show = None if on_prepare is None else partial(on_prepare, "learning the table")
    texts, how = _calibration(recipe, entropy_model, sources, LOOKUP_BYTES, show)
    target = recipe.target_patch_size
    patching, table = hooks.learn_table(texts, config.patching, target) or learn_lookup_table(
        entropy_model, texts, target, config.patching, **how
    )
    model = build_blt(replace(config, patching=patching), None, recipe.seed)
    model.lookup_table = table  # a buffer by now
    return model


def _calibration(
    recipe: Recipe,
    entropy_model: CausalTransformer | None,
    sources: Sequence[Source],
    size: int,
    show: OnShare | None,
) -> tuple[list[bytes], dict[str, Any]]:
    """Training text in the shares of the recipe, ``size`` bytes, and how to look at it."""
    data = recipe.data
    texts = training_sample(sources, data.weights, size, data.context_bytes)
    how = {"context_bytes": data.context_bytes, "sample_bytes": None, "on_progress": show}
    if entropy_model is None:
        return texts, how
    device = next(entropy_model.parameters()).device
    return texts, how | {"dtype": choose_dtype(recipe.train.precision, device)}


def calibrated(
    recipe: Recipe,
    patching: PatchingConfig,
    entropy_model: CausalTransformer,
    sources: Sequence[Source],
    on_prepare: OnPrepare | None = None,
) -> PatchingConfig:
    """The recipe's rule, calibrated on training text if it asks for that."""
    if recipe.target_patch_size == 0 or not patching.needs_entropies:
        return patching
    show = None if on_prepare is None else partial(on_prepare, "finding θ")
    texts, how = _calibration(recipe, entropy_model, sources, SAMPLE_BYTES, show)
    return calibrate(entropy_model, texts, recipe.target_patch_size, patching, **how)


def _check_shape(model: LanguageModel, recipe: Recipe, run: RunFolder) -> None:
    """A checkpoint that was put there from another run may not be what the recipe says."""
    wanted, found = recipe.model or recipe.byte_model or recipe.token_model, model.config
    if isinstance(wanted, Config) and isinstance(found, Config):
        found = replace(found, patching=wanted.patching)  # its threshold was calibrated
        if recipe.lora is not None:  # of a base that has what a recipe drops, as it cuts nothing
            found = replace(found, entropy_model=wanted.entropy_model)
    if found != wanted:
        raise UserError(
            f"{run.checkpoint}: is of another shape than the recipe of its run; put its own "
            "checkpoint back, or start another run"
        )


def _tokenizer(recipe: Recipe, sources: Sequence[Source]) -> ByteTokenizer:
    """The recipe's, or one trained on the training text."""
    assert recipe.token_model is not None
    found = find_tokenizer(recipe)
    return found or learned_tokenizer(sources, recipe.data, recipe.token_model.vocab_size)


def learned_tokenizer(
    sources: Sequence[Source], data: DataConfig, vocab_size: int
) -> ByteTokenizer:
    """BPE that learned from the training text, in which each source has the share of its weight."""
    texts = training_sample(sources, data.weights, TOKENIZER_BYTES, TOKENIZER_PIECE)
    return ByteTokenizer.train(texts, vocab_size)


def find_tokenizer(recipe: Recipe) -> ByteTokenizer | None:
    """The tokenizer that a recipe names; None: it wants one trained.

    Raises:
        UserError: it cannot be read, or its library is missing.
    """
    tokenizers_library()
    if recipe.tokenizer is None:
        return None
    try:
        return ByteTokenizer(Path(recipe.tokenizer).read_text())
    except (OSError, UserError) as error:
        raise UserError(f"tokenizer: {recipe.tokenizer}: {error}") from None
