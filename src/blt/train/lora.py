"""Train adapters (LoRA) in place of weights, through peft: the section ``lora`` of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blt.checkpoint import adapters
from blt.checkpoint.adapters import Adapter
from blt.checkpoint.pretrained import PRETRAINED
from blt.errors import UserError, needed, require
from blt.lm import LanguageModel, load
from blt.model.config import Config
from blt.model.layers import Linear
from blt.train.inherit import SECTIONS, init_folder, open_init
from blt.train.recipe import Recipe
from blt.train.sections import LoraConfig

NEVER = ("entropy_model", "router", "head")  # parts of names: they stay as they are


def base_of(recipe: Recipe) -> str | None:
    """The model that a training begins from: a folder or a hub id."""
    if recipe.init is None or not Path(recipe.init).is_dir():
        return recipe.init
    return str(init_folder(recipe.init).resolve())


def check(recipe: Recipe) -> None:
    """Refuse a recipe with adapters for what cannot have them.

    Raises:
        UserError: names the key, or the library that is missing.
    """
    if recipe.lora is None:
        return
    require(base_of(recipe) is not None, "lora: adapts a model that is there; name it as init")
    require(recipe.byteify is None, "lora: not with byteify, which gives all weights another task")
    require(
        recipe.target_patch_size == 0,
        "lora: the adapter is for its base as it is, θ included; set target_patch_size = 0",
    )
    assert recipe.init is not None
    both = "the package has two models of that name, and an adapter's base is the BLT"
    unlike = recipe.kind == "byte" and recipe.init == PRETRAINED
    require(not unlike, f"lora: init {PRETRAINED!r}: {both}; name a folder with a byte model")
    shape, was = getattr(recipe, SECTIONS[recipe.kind]), open_init(recipe.init, recipe.kind).config
    if isinstance(was, Config) and isinstance(shape, Config) and not was.patching.needs_entropies:
        was = replace(was, entropy_model=shape.entropy_model)  # a recipe drops what cuts nothing
    named = [key for key in ("entropy_model", "tokenizer") if getattr(recipe, key) is not None]
    require(
        not named and shape == was,
        "lora: the adapter is for its base as it is; leave out "
        f"{' and '.join(named) or 'what the recipe changes in ' + SECTIONS[recipe.kind]}, or train "
        "all weights",
    )
    _peft()


def begin(model: LanguageModel, config: LoraConfig, base: str, seed: int) -> None:
    """Freeze a model, and add an adapter to train, which changes nothing yet.

    Raises:
        UserError: a target that no layer has.
    """
    torch.manual_seed(seed)
    _apply(model, config, targets_of(model, config.targets), base)


def resumed(folder: Path) -> LanguageModel:
    """The base of a checkpoint that holds an adapter, with that on it, to be trained on.

    Raises:
        UserError: its base is gone, or another one; or a damaged adapter.
    """
    adapter, layers = adapters.read(folder)
    base = adapters.base_of(folder)
    model, found = load(base).float(), adapter.config  # as it was trained on
    dropout, targets = float(found.get("lora_dropout", 0.0)), tuple(sorted(layers))
    config = LoraConfig(int(found["r"]), float(found["lora_alpha"]), dropout, targets)
    missing = [layer for layer in targets if not isinstance(_module(model, layer), Linear)]
    require(not missing, f"{folder}: {next(iter(missing), '')!r} is no layer of {base}")
    _apply(model, config, targets, base)
    with torch.no_grad():
        for name, parameter in adapters.tensors_of(model).items():
            layer = name.removeprefix(adapters.PREFIX).rsplit(".lora_", 1)[0]
            value = layers[layer][0 if name.endswith(adapters.A) else 1]
            require(value.shape == parameter.shape, f"{folder}: {layer!r} does not fit {base}")
            parameter.copy_(value)
    return model


def targets_of(model: nn.Module, wanted: Sequence[str]) -> tuple[str, ...]:
    """Names of the linear layers to adapt.

    Args:
        wanted: parts of their names, such as ``global_transformer`` or ``attention.qkv``; none:
            all layers of the local and global models, but for the output head.

    Raises:
        UserError: a part that no layer has.
    """
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) and not set(NEVER) & set(name.split("."))
    ]
    for part in wanted:
        if not any(_has(name, part) for name in linear):
            parts = sorted({part for name in linear for part in name.split(".")} - {"layers"})
            known = ", ".join(part for part in parts if not part.isdecimal())
            raise UserError(f"lora.targets: no layer has {part!r} in its name; there are {known}")
    return tuple(x for x in linear if not wanted or any(_has(x, part) for part in wanted))


def _has(name: str, part: str) -> bool:
    return f".{part}." in f".{name}."


def _apply(model: LanguageModel, config: LoraConfig, targets: Sequence[str], base: str) -> None:
    peft = _peft()
    made = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(targets),
        base_model_name_or_path=base,
    )
    described = {**made.to_dict(), "target_modules": sorted(targets)}
    described = {key: getattr(value, "value", value) for key, value in described.items()}
    model.requires_grad_(False)
    peft.inject_adapter_in_model(made, model, adapter_name=adapters.NAME)
    model.adapter = Adapter({k: v for k, v in described.items() if _is_json(v)})


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)


def _module(model: nn.Module, name: str) -> nn.Module | None:
    return dict(model.named_modules()).get(name)


def _peft() -> Any:
    return needed("peft", "lora", "adapters need peft")
