"""From a recipe to a trained model: everything that ``blt train`` does."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blt.chat import ChatTemplate
from blt.checkpoint.folders import TRAINER
from blt.checkpoint.pretrained import PRETRAINED, find_entropy_model, identity, save_patching
from blt.data.heldout import Split
from blt.data.loader import Loader
from blt.data.noised import with_noise
from blt.data.segments import MemorySegments, Segments
from blt.data.shards import ShardSegments
from blt.data.sources import warn_once
from blt.data.text import (
    Reading,
    Source,
    heldout_by_source,
    open_sources,
    template_of_shards,
    weighted_sources,
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
    patching_of_init,
    with_shape_of_init,
)
from blt.train.build import OnPrepare, calibrated, model_of
from blt.train.compression import Compression
from blt.train.hooks import Hooks
from blt.train.inherit import SECTIONS, init_folder
from blt.train.loop import Loop, OnProgress
from blt.train.opening import open_run, record_changes
from blt.train.pace import Pace
from blt.train.parallel import recompute
from blt.train.parallel import start as parallel_of
from blt.train.recipe import Recipe
from blt.train.run import CHECKPOINT, RunFolder
from blt.train.sections import DataConfig, TrainConfig
from blt.train.trainer import Trainer, checked_values

PATCH_SAMPLE = 65536  # bytes of held-out text that the patch size is reported on


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
    if hooks is None and recipe.byteify is not None:
        raise UserError(
            "the recipe has a section byteify; train it with hooks=blt.byteify.hooks_of(recipe)"
        )
    choose_device(recipe.train.device)  # before anything is written
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
    parallel = parallel_of(recipe.train.device)  # before anything is written
    template = _template(recipe, Path(run_folder) / CHECKPOINT)
    sources = open_text(recipe, template)
    cuts = entropy_model or _own_entropy_model(recipe, beginning, run_folder)
    check_entropies(sources, recipe, cuts)
    run = open_run(run_folder, recipe, resume=resume, parallel=parallel, change=change)
    show = on_prepare if parallel.main else None
    if beginning is None or run.has_checkpoint:  # found again after a kill between two renames
        model = model_of(recipe, run, sources, entropy_model, show, hooks)
    else:
        model = begun_model(beginning, recipe, run, sources, entropy_model, show, say)
    if template is not None:
        model.chat_template = template.source
    hooks.begin(model, recipe, sources, new=not run.has_checkpoint)
    if recipe.lora is not None and not run.has_checkpoint:
        lora.begin(model, recipe.lora, str(lora.base_of(recipe)), recipe.seed)
    make_fast(model, recipe.train, divided=parallel.mesh is not None)
    parallel.shard(model)
    if not run.has_checkpoint:
        run.forget_after(-1)  # of a run that was killed before its first checkpoint
        for source in sources:
            run.log({"event": "data", "source": source.name, **source.facts})
    batches = Loader(
        texts_of(sources, recipe.data),
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
    last = Loop(trainer, heldout_by_source(sources), run, shown).run(
        resume,
        spent=0.0 if run.has_checkpoint else time.monotonic() - start,
        # A BLT's entropy model alone is several times faster than all of it.
        score_after=PATCH_SAMPLE // 4 if isinstance(model, BLT) else PATCH_SAMPLE + SAMPLE_BYTES,
    )
    _report_patches(model, recipe, run, sources, last.step)
    return model


def _template(recipe: Recipe, checkpoint: Path) -> ChatTemplate | None:
    """How conversations are laid out: as prepared ones are, else as in the checkpoint, else as in
    the model that a training begins from, else as by default; None where there are no
    conversations."""
    prepared = template_of_shards(recipe.data.sources)
    if prepared is None and not recipe.data.converses:
        return None
    require(
        recipe.byteify is None or not recipe.byteify.distill,
        "byteify.distill: not with conversations, whose turns end with ids that the teacher does "
        "not have",
    )
    begins = recipe.init not in (None, PRETRAINED)
    folders = [checkpoint] * checkpoint.is_dir() + [init_folder(str(recipe.init))] * begins
    found = ChatTemplate.from_folder(folders[0]) if folders else None
    if prepared is None:
        return found or ChatTemplate.default()
    if found is not None and found.source != prepared.source:
        warn_once(
            f"{prepared.where}: is another than that of {folders[0]}, and the trained model gets "
            f"it; to keep the other, prepare the text again with --template {folders[0]}"
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


def open_text(recipe: Recipe, template: ChatTemplate | None = None) -> list[Source]:
    """What a recipe trains on and is evaluated on.

    Args:
        template: how conversations are laid out; None: as by default.
    """
    data = recipe.data
    opened = weighted_sources if data.weights else open_sources
    return opened(
        data.sources,
        heldout=data.heldout,
        max_bytes=data.max_bytes,
        context_bytes=data.context_bytes,
        heldout_bytes=max(PATCH_SAMPLE, recipe.train.eval_bytes),
        reading=Reading(data.learn, data.max_broken, template),
    )


def texts_of(sources: Sequence[Source], data: DataConfig) -> list[Segments]:
    """What batches are made of: the text of each source, a share of it disturbed."""
    return [with_noise(source.train, data.noise, data.noises) for source in sources]


def check_entropies(
    sources: Sequence[Source], recipe: Recipe, entropy_model: CausalTransformer | None
) -> None:
    """Stored entropies must be those that the recipe's entropy model would give.

    Raises:
        UserError: another model's, with another reset, or of text that is yet to be disturbed;
            names the folder.
    """
    if recipe.model is None or not recipe.model.patching.needs_entropies:
        return
    for source in sources:
        stored = source.train.entropy_model if isinstance(source.train, ShardSegments) else None
        if stored is None or not isinstance(source.train, ShardSegments):
            continue
        if recipe.data.noise:
            raise UserError(
                f"{source.name}: holds entropies of its text as it is, and data.noise disturbs "
                "it; prepare it again without an entropy model, or leave out data.noise"
            )
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


def loader(parts: Split, data: DataConfig, seed: int) -> Loader:
    """Training batches of documents in memory, as a recipe asks for them."""
    text = MemorySegments(parts.train, data.context_bytes, parts.cut)
    return Loader(
        [with_noise(text, data.noise, data.noises)],
        batch_bytes=data.batch_bytes,
        context_bytes=data.context_bytes,
        seed=seed,
    )


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
