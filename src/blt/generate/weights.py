"""A model's weights as generation reads them: packed for products with a few rows.

Writing a byte reads every weight of the byte-level models once, and a patch those of the global
transformer, so speed is how fast weights come from memory: narrower and better laid out is faster.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from blt.errors import UserError
from blt.generate.cpp import library
from blt.generate.cpp.products import NativeLinear, is_native, with_native_products
from blt.generate.linears import CastLinear, Int8Linear, PackedLinear
from blt.model.embedding import NgramTables

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
Model = TypeVar("Model", bound=nn.Module)


def packed(model: Model, precision: Precision, native: bool | None = None) -> Model:
    """A copy for inference with weights packed in ``precision``; the rest is shared, not copied.

    Activations and sums are float32 on a CPU, and elsewhere in the model's own precision.

    Args:
        model: a BLT or byte transformer.
        precision: of the weights.
        native: take steps in C++ (:mod:`blt.generate.cpp`). None: where that can be compiled.

    Raises:
        UserError: an unknown precision, or int8 on a device other than a CPU.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    on_cpu = next(model.parameters()).device.type == "cpu"
    if native is None:
        native = on_cpu and library() is not None
    if native and (not on_cpu or library() is None):
        raise UserError("native steps need a CPU, a C++ compiler, and BLT_NATIVE not to be 0")
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, cast(dict[int, object], shared)).eval()
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            weight = _weight_of(child)
            if weight is not None:
                setattr(module, name, _packed_linear(weight, precision, native))
    if on_cpu:
        _widen(copied)
    if native:
        with_native_products(copied)
    return copied


def of_many_rows(model: Model) -> Model:
    """A copy of what :func:`packed` gives, with the same weights, that ``torch.compile`` takes."""
    shared: dict[int, object] = {id(x): x for x in (*model.parameters(), *model.buffers())}
    for module in model.modules():
        if isinstance(module, CastLinear | PackedLinear | Int8Linear | NativeLinear):
            shared[id(module)] = module.of_many_rows()  # what deepcopy takes in its place
    return copy.deepcopy(model, shared)


def _widen(model: nn.Module) -> None:
    """Let activations be float32: what is not a product is small, but for the hash tables."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_table = isinstance(module, NgramTables) and parameter is module.ngram
            if parameter.dtype in (torch.bfloat16, torch.float16) and not is_table:
                setattr(module, name, nn.Parameter(parameter.detach().float(), False))


def _weight_of(layer: nn.Module) -> Tensor | None:
    """Of a linear layer, with the adapters added that peft has put around it; None: of another."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach()
    if not hasattr(layer, "get_delta_weight"):
        return None
    adapted: Any = layer
    with torch.no_grad():
        parts = [adapted.get_delta_weight(name) for name in adapted.active_adapters]
        return sum((part.to(adapted.weight.dtype) for part in parts), adapted.weight.detach())


def _packed_linear(weight: Tensor, precision: Precision, native: bool) -> nn.Module:
    if precision == "int8":
        if weight.device.type != "cpu":
            raise UserError("precision 'int8' is for CPUs; on a GPU use 'bfloat16'")
        return Int8Linear(weight)
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    packs = not native and _packs(dtype, weight.device)  # C++ reads weights as they are
    return PackedLinear(weight, dtype) if packs else CastLinear(weight.to(dtype).contiguous())


def _packs(dtype: torch.dtype, device: torch.device) -> bool:
    """Can oneDNN lay out weights of this kind?"""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def cache_dtype(model: nn.Module, precision: Precision) -> torch.dtype:
    """The dtype of keys and values: narrow too where products with narrow ones are fast."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    narrow = precision != "float32" and (is_native(model) or not on_cpu)
    return torch.bfloat16 if narrow else torch.float32
