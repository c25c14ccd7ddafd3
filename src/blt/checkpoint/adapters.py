"""Adapters (LoRA, arXiv 2106.09685) in peft's layout: read and merged without peft.

==============================  ==================================================
``adapter_config.json``         rank, alpha, the base model and the layers, by name
``adapter_model.safetensors``   ``base_model.model.LAYER.lora_A.weight`` [r, in] and
                                ``...lora_B.weight`` [out, r] of each layer
==============================  ==================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from blt.chat.source import TEMPLATE
from blt.checkpoint.folders import Checkpoint, write_whole
from blt.errors import UserError, require, require_number, require_within
from blt.files import checksums
from blt.files.stored import inside
from blt.files.strict_json import read_object
from blt.files.tensors import Tensors, check_finite

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
MOST_RANK = 2**16
NAME = "default"  # of an adapter within a model, as peft calls a first one
# What changes how an adapter is applied, and the values that we apply.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
    "lora_bias": (False, None),
}


@dataclass(frozen=True)
class Adapter:
    """What is trained in a model in place of its weights."""

    config: Mapping[str, Any]  # as adapter_config.json has it

    @property
    def scale(self) -> float:
        """What ``B @ A`` is multiplied with."""
        return float(self.config["lora_alpha"]) / int(self.config["r"])


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def base_of(folder: Path) -> str:
    """Folder or hub id of the model that a folder's adapter is for; of another, the folder itself.

    Raises:
        UserError: an adapter that does not say it.
    """
    if not is_adapter(folder):
        return str(folder)
    base = read_config(folder).config.get("base_model_name_or_path")
    require(
        isinstance(base, str) and base != "",
        f"{folder / CONFIG}: names no base model; give it, and this as the adapter",
    )
    return str(base)


def read_config(folder: Path) -> Adapter:
    """What an adapter is.

    Raises:
        UserError: none there, a damaged one, or one of another kind than plain LoRA; names the key.
    """
    require(is_adapter(folder), f"{folder}: no {CONFIG} here; name a folder with an adapter")
    data = read_object(folder / CONFIG)
    for key, values in PLAIN.items():
        value = data.get(key, values[0])
        require(value in values, f"{folder / CONFIG}: {key}: {value!r} is not plain LoRA")
    where = f"{folder / CONFIG}:"
    require_within(f"{where} r", data.get("r"), 1, MOST_RANK)
    require_number(f"{where} lora_alpha", data.get("lora_alpha"))
    require(data["lora_alpha"] > 0, f"{where} lora_alpha must be positive")
    return Adapter(data)


def read(folder: Path) -> tuple[Adapter, dict[str, tuple[Tensor, Tensor]]]:
    """An adapter, with A [r, in] and B [out, r] of each layer, by its name.

    Raises:
        UserError: as of :func:`read_config`; missing or damaged, a link out of the folder, tensors
            that are no pairs of matrices of the rank that the adapter says, or no numbers; names
            the first.
    """
    adapter = read_config(folder)
    path, rank = inside(folder, WEIGHTS), int(adapter.config["r"])
    checksums.check(folder)
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: missing or damaged ({error})") from None
    layers = {name.removeprefix(PREFIX).removesuffix(A) for name in found if name.endswith(A)}
    expected = {PREFIX + layer + part for layer in layers for part in (A, B)}
    for name in sorted(expected ^ found.keys()):
        raise UserError(
            f"{path}: tensor {name!r} is {'missing' if name in expected else 'unknown'}"
        )
    for name, tensor in found.items():
        low = tensor.shape[0 if name.endswith(A) else -1] if tensor.dim() == 2 else None
        require(
            low == rank and tensor.is_floating_point(),
            f"{path}: tensor {name!r} is {tensor.dtype} {list(tensor.shape)}, and the adapter's "
            f"rank is {rank}",
        )
        check_finite(tensor, str(path), name)
    pairs = {layer: (found[PREFIX + layer + A], found[PREFIX + layer + B]) for layer in layers}
    return adapter, pairs


def save(
    folder: str | os.PathLike[str],
    adapter: Adapter,
    tensors: Mapping[str, Tensor],
    template: str | None = None,
) -> None:
    """Write an adapter's folder whole or not at all; ``tensors`` are named as in the file.

    Args:
        template: the chat template that it was trained with, if it was on conversations.

    Raises:
        UserError: a file, or a folder that holds something else or a training's checkpoint.
    """
    texts = {CONFIG: json.dumps(dict(adapter.config), indent=2) + "\n"}
    if template is not None:
        texts[TEMPLATE] = template
    write_whole(Path(folder), texts, tensors, CONFIG, WEIGHTS)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """A and B of every adapted layer, as peft holds them, under their names in a file."""
    return {
        PREFIX + name.replace(f".{NAME}.weight", ".weight"): parameter
        for name, parameter in model.named_parameters()
        if name.endswith((f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"))
    }


def merged(found: Checkpoint, folder: Path) -> Checkpoint:
    """A model with an adapter added to its weights, in the precision that they have.

    Raises:
        UserError: an adapter of other layers or shapes; names the first.
    """
    adapter, layers = read(folder)
    for layer, (a, b) in layers.items():
        spec = found.tensors.specs.get(f"{layer}.weight")
        fits = spec is not None and spec.shape == (len(b), a.shape[1])
        shape = "has no such layer" if spec is None else f"has one of {list(spec.shape)}"
        require(
            fits,
            f"{folder}: the adapter does not fit {found.where}: it is for a layer {layer!r} of "
            f"{[len(b), a.shape[1]]}, and the model {shape}; {_made_for(adapter)}",
        )
    return replace(found, tensors=Merged(found.tensors, layers, adapter.scale))


def _made_for(adapter: Adapter) -> str:
    base = adapter.config.get("base_model_name_or_path")
    return f"it was made for {base}" if base else "name the model that it was made for"


class Merged(Tensors):
    """Weights with ``scale * B @ A`` added to those of some layers."""

    def __init__(
        self, source: Tensors, layers: Mapping[str, tuple[Tensor, Tensor]], scale: float
    ) -> None:
        self.source, self.scale, self.specs = source, scale, source.specs
        self.layers = {f"{layer}.weight": pair for layer, pair in layers.items()}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        found = self.source.rows(name, start, stop)
        if name not in self.layers:
            return found
        a, b = self.layers[name]
        delta = b[start:stop].float() @ a.float() * self.scale
        return (found.float() + delta).to(found.dtype)

    def read(self, name: str) -> Tensor:
        return super().read(name) if name in self.layers else self.source.read(name)

    def origin(self, name: str) -> str:
        return self.source.origin(name)
