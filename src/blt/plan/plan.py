"""Parameters, FLOPs, memory, time and cost of a recipe; reads no text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blt.byteify import hooks_of
from blt.checkpoint.pretrained import PRETRAINED, find_entropy_model
from blt.errors import UserError, require
from blt.lm import BLT, ByteLM, LanguageModel
from blt.machine.hardware import Hardware
from blt.machine.shares import Share, expected_share
from blt.model.compiling import wants_compiling
from blt.model.config import ByteTransformerConfig, Config
from blt.model.flops import TRAINING_FACTOR, byte_transformer_flops, flops_per_byte
from blt.patching import PatchingConfig
from blt.plan.memory import StepMemory, meta_model, step_memory
from blt.train.recipe import Recipe
from blt.train.sections import TrainConfig

OTHER_MEMORY = 1e9  # bytes of a GPU: its context, libraries and buffers for exchange


@dataclass(frozen=True)
class Plan:
    """What :func:`make_plan` finds out.

    Attributes:
        parameters: of each part; tables apart.
        inference_flops: per byte, the entropy model left out.
        entropy_flops: per byte, of the entropy model's forward pass.
        training_flops: per byte, forward and backward, the entropy model left out.
        memory: of one device's process.
        teacher: bytes of a device that the token model of `blt byteify` takes besides.
        needed: bytes of a device, with what is not tensors.
        batch_bytes: ids of one step, on all devices.
        steps: None: the recipe's time decides.
        ended_by: the limit of the recipe that is reached first: steps, bytes, seconds or flops;
            epochs may be over before, which the text alone tells.
        mfu: share of the devices' peak that training reaches.
        mfu_from: how that is known.
        total_bytes: of text, over all steps.
        bytes_per_second: on all devices together.
        seconds: wall clock.
        cost: dollars.
    """

    parameters: dict[str, int]
    inference_flops: float
    entropy_flops: float
    training_flops: float
    memory: StepMemory
    teacher: int
    needed: float
    fits: bool
    batch_bytes: int
    steps: int | None
    ended_by: str
    mfu: float
    mfu_from: str
    total_bytes: float
    bytes_per_second: float
    seconds: float
    cost: float
    compiled: bool  # by torch.compile
    recomputes: bool


def make_plan(
    recipe: Recipe, hardware: Hardware, mfu: float | None = None, price: float | None = None
) -> Plan:
    """Plan a recipe on some devices, one process each.

    Args:
        mfu: share of the devices' peak that training reaches; None: as
            :func:`blt.machine.shares.expected_share` has it.
        price: dollars per device and hour; None: the catalogue's.

    Raises:
        UserError: a recipe of which nothing is known before it runs: of a token model, of an
            adapter, or that epochs alone end.
    """
    require(
        recipe.lora is None,
        "lora: blt plan knows trainings of all weights, and adapters take less memory; to see the "
        "most that it can be, plan the recipe without this section",
    )
    hooks = hooks_of(recipe)
    recipe = hooks.resolve(recipe)
    config = shape_of(recipe)
    data, train = recipe.data, recipe.train
    patch_size = _patch_size(recipe)
    inference, entropy = _flops(config, patch_size, data.context_bytes)
    training = TRAINING_FACTOR * inference
    kind = "cpu" if hardware.shared_memory else "cuda"
    learns = recipe.model is not None and recipe.model.patching.is_learned  # where patches start
    compiled = wants_compiling(train.compile, torch.device(kind)) and not learns
    dtype = torch.float32 if train.precision == "float32" else torch.bfloat16
    memory = step_memory(
        config,
        batch_bytes=data.batch_bytes,
        context_bytes=min(data.context_bytes, data.batch_bytes),
        patch_size=patch_size,
        dtype=dtype,
        world=hardware.count,
        recomputes=train.recompute,
        optimizer=train.optimizer,
        gpu=not hardware.shared_memory,
        compiled=compiled,
        accumulate=train.accumulate,
    )
    batch = data.batch_bytes * train.accumulate * hardware.count
    share = expected_share(hardware.name, training * data.batch_bytes, compiled)
    if mfu is not None:
        share = Share(mfu, "given")
    speed = hardware.count * hardware.flops * share.mfu / (training + entropy)
    limits = _limits(train, batch, speed, training + entropy)
    limit = min(limits, key=limits.__getitem__)
    total = limits[limit]
    seconds = total / speed
    teacher = hooks.memory(data.batch_bytes, patch_size, dtype.itemsize)
    own = memory.resident if hardware.shared_memory else memory.peak + OTHER_MEMORY
    needed = own + teacher
    hourly = hardware.price if price is None else price
    return Plan(
        parameters=parameters(meta_model(config)),
        inference_flops=inference,
        entropy_flops=entropy,
        training_flops=training,
        memory=memory,
        teacher=teacher,
        needed=needed,
        fits=needed <= hardware.memory,
        batch_bytes=batch,
        steps=None if limit == "seconds" else math.ceil(total / batch),
        ended_by=limit,
        mfu=share.mfu,
        mfu_from=share.source,
        total_bytes=total,
        bytes_per_second=speed,
        seconds=seconds,
        cost=hourly * hardware.count * seconds / 3600,
        compiled=compiled,
        recomputes=train.recompute,
    )


def _limits(
    train: TrainConfig, step_bytes: int, speed: float, flops_per_byte: float
) -> dict[str, float]:
    """Bytes of text after which each limit of a training ends it.

    Raises:
        UserError: there are epochs alone, which end with a text that is not read here.
    """
    after = {
        "steps": train.steps and train.steps * step_bytes,
        "bytes": train.bytes,
        "seconds": train.seconds and train.seconds * speed,
        "flops": train.flops and train.flops / flops_per_byte,
    }
    found = {name: float(size) for name, size in after.items() if size is not None}
    require(
        bool(found),
        "blt plan reads no text, so train.epochs alone does not tell how long; give train.bytes, "
        "the bytes of the text times the epochs, as well",
    )
    return found


def _patch_size(recipe: Recipe) -> float:
    """Bytes per patch: of the rule, or what θ is calibrated to; an assumption for other rules."""
    patching = recipe.model.patching if recipe.model is not None else PatchingConfig()
    if patching.rule == "byte":
        return 1.0
    if patching.rule == "static":
        return float(min(patching.stride, patching.max_patch_length or patching.stride))
    return max(1.0, recipe.target_patch_size or 4.5)


def shape_of(recipe: Recipe) -> Config | ByteTransformerConfig:
    """The model to be trained; where its entropy model is not there yet, with the recipe's."""
    if recipe.kind == "token":
        raise UserError("blt plan knows BLTs and byte transformers, not token models")
    if recipe.byte_model is not None:
        return recipe.byte_model
    model = recipe.model or Config()
    if not model.patching.needs_entropies:
        return replace(model, entropy_model=None)
    name = recipe.entropy_model
    if name == PRETRAINED or (name and Path(name).is_dir()):
        found = find_entropy_model(name)
        return replace(model, entropy_model=found.config if found else None)
    return model


def parameters(model: LanguageModel) -> dict[str, int]:
    """Numbers in each part."""
    if not isinstance(model, BLT):
        assert isinstance(model, ByteLM)
        tables = 0 if model.tables is None else _numbers(model.tables)
        parts = {"byte transformer": _numbers(model) - tables, "hash tables": tables}
        return {name: count for name, count in parts.items() if count}
    table = model.encoder.embedding.ngram.numel()
    parts = {
        "global transformer": _numbers(model.global_transformer),
        "local encoder": _numbers(model.encoder) - table,
        "router": _numbers(model.router) if model.router is not None else 0,
        "local decoder": _numbers(model.decoder),
        "hash tables": table,
        "entropy model": _numbers(model.entropy_model) if model.entropy_model else 0,
    }
    return {name: count for name, count in parts.items() if count}


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flops(config: Any, patch_size: float, context_bytes: int) -> tuple[float, float]:
    """Forward FLOPs per byte of the model and of its entropy model."""
    if isinstance(config, Config):
        found = flops_per_byte(config, patch_size, context_bytes)
        return found.total, found.entropy_model
    return byte_transformer_flops(config, context_bytes), 0.0
