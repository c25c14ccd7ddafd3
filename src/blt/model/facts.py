"""A model in three lines: what it is, its shape, and how it reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from blt.model.blt import ByteLatentTransformer
from blt.model.embedding import NgramTables

UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def three_lines(model: nn.Module) -> str:
    """Kind and parameters, shape, and patches, precision and device."""
    config: Any = model.config
    weight = next(model.parameters())
    place = f"{str(weight.dtype).removeprefix('torch.')} on {weight.device}"
    if isinstance(model, ByteLatentTransformer):
        lines = [_blt_shape(config), f"patches: {model.patcher.describe()}; {place}"]
    else:
        window = f", window {config.sliding_window}" if config.sliding_window else ""
        read = "bytes" if config.kind == "byte" else f"{config.num_ids:,} tokens"
        lines = [f"{config.layers} layers of {config.dim}{window}", f"{read}; {place}"]
    return "\n".join([f"{type(model).__name__}: {_parameters(model)}", *lines])


def _blt_shape(config: Any) -> str:
    return (
        f"encoder {config.encoder_layers} × {config.local_dim}, "
        f"global {config.global_layers} × {config.global_dim}, "
        f"decoder {config.decoder_layers} × {config.local_dim}, window {config.sliding_window}"
    )


def _parameters(model: nn.Module) -> str:
    """How many, and how many of them in hash tables and in the entropy model."""
    tables = [module.ngram for module in model.modules() if isinstance(module, NgramTables)]
    entropy_model = getattr(model, "entropy_model", None)
    parts = {"hash tables": _count(tables)}
    parts["its entropy model"] = 0 if entropy_model is None else _count(entropy_model.parameters())
    text = f"{_short(_count(model.parameters()))} parameters"
    inside = [f"{_short(count)} in {name}" for name, count in parts.items() if count]
    return f"{text}, {' and '.join(inside)}" if inside else text


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _short(count: int) -> str:
    """1234567 → 1.2M."""
    for size, unit in UNITS:
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
