"""From a recipe to a trained model: everything that ``blt train`` does."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blt.chat import ChatTemplate
from blt.checkpoint.folders import TRAINER
from blt.checkpoint.pretrained import PRETRAINED, find_entropy_model, save_patching
from blt.data.loader import Loader
from blt.data.sources import warn_once
from blt.data.text import (
    Source,
    heldout_by_source,
    template_of_shards,
)
from blt.errors import UserError, require
from blt.lm import BLT, ByteLM, LanguageModel, TokenLM
from blt.machine.hardware import device_name
from blt.machine.precision import choose_device, choose_dtype, settle_bfloat16
from blt.model.compiling import compile_model, wants_compiling
from blt.model.transformer import CausalTransformer
from blt.patching.patcher import SAMPLE_BYTES, Patcher
from blt.train import lora
from blt.train.begin import (
    Beginning,
    Say,
    begin,
    begun_model,
    begun_of,
    patching_of_init,
    with_shape_of_init,
)
from blt.train.build import OnPrepare, calibrated, model_of
from blt.train.compression import Compression
from blt.train.corpus import PATCH_SAMPLE, check_entropies, open_text, texts_of
from blt.train.hooks import Hooks
from blt.train.inherit import SECTIONS, init_folder
from blt.train.loop import Loop, OnProgress
from blt.train.opening import open_run, record_changes
from blt.train.pace import Pace
from blt.train.parallel import Parallel, recompute
from blt.train.parallel import start as parallel_of
from blt.train.recipe import Recipe
from blt.train.run import CHECKPOINT, RunFolder
from blt.train.sections import TrainConfig
from blt.train.trainer import Trainer, checked_values


def train_recipe(
    recipe: Recipe,
    run_folder: str | os.PathLike[str],
    resume: bool = False,
    on_progress: OnProgress | None = None,
    on_prepare: OnPrepare | None = None,
    hooks: Hooks | None = None,
    *,
    change: Collection[str] = (),
    say: Say | None = None,
) -> LanguageModel:
    """Train the model of ``recipe`` and leave it in ``run_folder/checkpoint``.

    Args:
        run_folder: new or empty; with ``resume``, one that was left before its end.
        on_progress: called with every report of :func:`blt.train.loop.fit`.
        on_prepare: called before the first step, with what is being done and its share, 0..1.
        hooks: what the training does besides; a recipe with a section byteify needs those of
            :func:`blt.byteify.hooks_of`.
        change: with ``resume``, dotted names of what ``recipe`` changes on purpose.
        say: called with lines about the model that the training begins from, and about changes.

    Returns:
        the trained model, ready to use.

    Raises:
        UserError: bad text, recipe, entropy model or run folder; says what, where, the way out.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    start = time.monotonic()
    opened = _open(recipe, run_folder, hooks)
    recipe, parallel, hooks = opened.recipe, opened.parallel, opened.hooks
    run = open_run(run_folder, recipe, resume=resume, parallel=parallel, change=change)
    model = _ready_to_train(opened, run, on_prepare, say)
    batches = Loader(
        texts_of(opened.sources, recipe.data),
        recipe.data.weights,
        batch_bytes=recipe.data.batch_bytes,
        context_bytes=recipe.data.context_bytes,
        seed=recipe.seed,
        rank=parallel.rank,
        world=parallel.world,
    )
    if run.has_checkpoint:
        values = checked_values(run, batches)
        if parallel.mesh is None:  # several processes have agreed by now
            _settle_as_before(values, model.device)
    if resume:
        for line in record_changes(run, recipe):
            if say is not None and parallel.main:
                say(line)
    trainer = Trainer(model, batches, recipe.train, parallel, hooks, Compression.of(recipe))
    shown = Pace(trainer.meter, on_progress, recipe.data.batch_bytes)
    last = Loop(trainer, heldout_by_source(opened.sources), run, shown).run(
        resume,
        spent=0.0 if run.has_checkpoint else time.monotonic() - start,
        # A BLT's entropy model alone is several times faster than all of it.
        score_after=PATCH_SAMPLE // 4 if isinstance(model, BLT) else PATCH_SAMPLE + SAMPLE_BYTES,
    )
    _report_patches(model, recipe, run, opened.sources, last.step)
    return model


@dataclass(frozen=True)
class _Opened:
    """What a training is made of, before anything is written."""

    recipe: Recipe
    hooks: Hooks
    beginning: Beginning | None  # the model that it begins from
    entropy_model: CausalTransformer | None
    parallel: Parallel
    template: ChatTemplate | None
    sources: Sequence[Source]


def _open(recipe: Recipe, run_folder: str | os.PathLike[str], hooks: Hooks | None) -> _Opened:
    """Everything that a recipe names, found and checked."""
    if hooks is None and recipe.byteify is not None:
        raise UserError(
            "the recipe has a section byteify; train it with hooks=blt.byteify.hooks_of(recipe)"
        )
    on_mps = choose_device(recipe.train.device).type == "mps"
    require(not on_mps, "train.device: training adds up in float64, which mps lacks; take 'cpu'")
    hooks = hooks or Hooks()
    recipe = hooks.resolve(recipe)
    begins = recipe.init is not None and not (Path(run_folder) / CHECKPOINT / TRAINER).is_file()
    if begins or getattr(recipe, SECTIONS[recipe.kind]) is None:
        recipe = with_shape_of_init(recipe)
    lora.check(recipe)
    beginning = begin(recipe) if begins else None
    entropy_model = find_entropy_model(recipe.entropy_model)
    if entropy_model is not None and recipe.model is not None and not recipe.learns_table:
        shape = entropy_model.config
        recipe = replace(recipe, model=replace(recipe.model, entropy_model=shape))
    parallel = parallel_of(recipe.train.device)
    template = _template(recipe, Path(run_folder) / CHECKPOINT)
    sources = open_text(recipe, template)
    cuts = entropy_model or _own_entropy_model(recipe, beginning, run_folder)
    check_entropies(sources, recipe, cuts)
    return _Opened(recipe, hooks, beginning, entropy_model, parallel, template, sources)


def _ready_to_train(
    opened: _Opened, run: RunFolder, on_prepare: OnPrepare | None, say: Say | None
) -> LanguageModel:
    """The model, new, begun or taken up again; compiled and divided, as it is wanted."""
    recipe, sources, parallel, hooks = opened.recipe, opened.sources, opened.parallel, opened.hooks
    show = on_prepare if parallel.main else None
    known = recipe, run, sources, opened.entropy_model, show
    if opened.beginning is None or run.has_checkpoint:  # found again after a kill between renames
        model = model_of(*known, hooks)
    else:
        model = begun_model(opened.beginning, *known, say)
    model.begun = begun_of(run)
    if opened.template is not None:
        model.chat_template = opened.template.source
    hooks.begin(model, recipe, sources, new=not run.has_checkpoint)
    if recipe.lora is not None and not run.has_checkpoint:
        lora.begin(model, recipe.lora, str(lora.base_of(recipe)), recipe.seed)
    make_fast(model, recipe.train, divided=parallel.mesh is not None)
    parallel.shard(model)
    if not run.has_checkpoint:
        run.forget_after(-1)  # of a run that was killed before its first checkpoint
        for source in sources:
            run.log({"event": "data", "source": source.name, **source.facts})
    return model


def _template(recipe: Recipe, checkpoint: Path) -> ChatTemplate | None:
    """How conversations are laid out: as prepared ones are, else as in the checkpoint, else as in
    the model that a training begins from, else as by default; None where there are no
    conversations."""
    prepared = template_of_shards(recipe.data.sources)
    if prepared is None and not recipe.data.converses:
        return None
    folder = checkpoint if checkpoint.is_dir() else None
    if folder is None and recipe.init not in (None, PRETRAINED):
        folder = init_folder(str(recipe.init))  # not asked for again: it may be gone by then
    found = None if folder is None else ChatTemplate.from_folder(folder)
    if prepared is None:
        return found or ChatTemplate.default()
    if found is not None and found.source != prepared.source:
        warn_once(
            f"{prepared.where}: is another than that of {folder}, and the trained model gets "
            f"it; to keep the other, prepare the text again with --template {folder}"
        )
    return prepared


def _settle_as_before(values: dict[str, Any], device: torch.device) -> None:
    """On the same device bfloat16 counts as it was measured when the run began: another load, and
    so another answer, would round otherwise."""
    faster = values.get("bfloat16_is_faster")
    if faster is not None and values.get("device") == device_name(device):
        settle_bfloat16(device, faster)


def _own_entropy_model(
    recipe: Recipe, beginning: Beginning | None, run_folder: str | os.PathLike[str]
) -> CausalTransformer | None:
    """That of the model which a training begins from, or began from, where it has one."""
    if recipe.init is None or recipe.model is None or not recipe.model.patching.needs_entropies:
        return None
    if beginning is not None:
        return beginning.model.entropy_model if isinstance(beginning.model, BLT) else None
    return find_entropy_model(str(Path(run_folder) / CHECKPOINT))


def make_fast(model: nn.Module, config: TrainConfig, divided: bool = False) -> None:
    """Compile a model, and let it recompute, as a recipe asks for it.

    Args:
        divided: its weights will be divided among processes.
    """
    compiles = wants_compiling(config.compile, next(model.parameters()).device)
    compiled = compiles and compile_model(model, divided=divided, recompute=config.recompute)
    if config.recompute and not compiled:
        recompute(model)


def _report_patches(
    model: LanguageModel, recipe: Recipe, run: RunFolder, sources: Sequence[Source], step: int
) -> None:
    """Log the patch size on held-out text; an entropy model first gets a θ of its own.

    Also of a run that had ended: its last checkpoint was written again, without θ.
    """
    if isinstance(model, TokenLM):
        return
    if isinstance(model, BLT):
        patcher = model.patcher
    else:
        assert isinstance(model, ByteLM)
        patcher = Patcher(calibrated(recipe, patching_of_init(run), model, sources), model)
        if run.parallel.main:
            save_patching(run.checkpoint, patcher.config)
    event: dict[str, Any] = {"event": "patching", "step": step, "rule": patcher.config.rule}
    event["threshold"] = patcher.config.threshold
    if heldout := [text for source in sources for text in source.heldout]:
        event["heldout_patch_size"] = patcher.mean_patch_size(
            heldout,
            context_bytes=recipe.data.context_bytes,
            sample_bytes=PATCH_SAMPLE,
            dtype=choose_dtype(recipe.train.precision, model.device),
        )
    if not run.logged("patching", step):
        run.log(event)
