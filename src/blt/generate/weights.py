"""A model's weights as generation reads them: packed for products with a few rows.

Writing a byte reads every weight of the byte-level models once, and a patch those of the global
transformer, so speed is how fast weights come from memory: narrower and better laid out is faster.
"""

from __future__ import annotations

import copy
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.errors import UserError
from blt.machine.precision import choose_dtype
from blt.model.embedding import ByteEmbedding

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
INT8_ROWS = 16  # up to here the int8 product is the fastest; above, one in bfloat16
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
    from blt.generate.cpp import library

    on_cpu = next(model.parameters()).device.type == "cpu"
    if native is None:
        native = on_cpu and library() is not None
    if native and (not on_cpu or library() is None):
        raise UserError("native steps need a CPU, a C++ compiler, and BLT_NATIVE not to be 0")
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, cast(dict[int, object], shared)).eval()
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, _packed_linear(child.weight.detach(), precision, native))
    if on_cpu:
        _widen(copied)
    if native:
        from blt.generate.cpp.products import with_native_products

        with_native_products(copied)
    return copied


def _widen(model: nn.Module) -> None:
    """Let activations be float32: what is not a product is small, but for the hash tables."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_table = isinstance(module, ByteEmbedding) and parameter is module.ngram
            if parameter.dtype in (torch.bfloat16, torch.float16) and not is_table:
                setattr(module, name, nn.Parameter(parameter.detach().float(), False))


def _packed_linear(weight: Tensor, precision: Precision, native: bool) -> nn.Module:
    if precision == "int8":
        if weight.device.type != "cpu":
            raise UserError("precision 'int8' is for CPUs; on a GPU use 'bfloat16'")
        return Int8Linear(weight)
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    packs = not native and _packs(dtype, weight.device)  # C++ reads weights as they are
    return PackedLinear(weight.to(dtype)) if packs else CastLinear(weight.to(dtype).contiguous())


def _packs(dtype: torch.dtype, device: torch.device) -> bool:
    """Can oneDNN lay out weights of this kind?"""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def cache_dtype(model: nn.Module, precision: Precision) -> torch.dtype:
    """Of keys and values: narrow too where products with narrow ones are fast."""
    from blt.generate.cpp.products import is_native

    on_cpu = next(model.parameters()).device.type == "cpu"
    narrow = precision != "float32" and (is_native(model) or not on_cpu)
    return torch.bfloat16 if narrow else torch.float32


class CastLinear(nn.Module):
    """A product in the weights' precision, returned in that of its input."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:  # [..., d] -> [..., f]
        dtype = _dtype_of_many(self.weight.dtype, x)
        return F.linear(x.to(dtype), self.weight.to(dtype)).to(x.dtype)


def _dtype_of_many(narrow: torch.dtype, x: Tensor) -> torch.dtype:
    """For products of many rows: float32 where narrow numbers are only emulated."""
    few = x.numel() <= INT8_ROWS * x.shape[-1]
    return narrow if few or narrow == torch.float32 else choose_dtype("auto", x.device)


class PackedLinear(nn.Module):
    """The same with weights in oneDNN's own layout: 1.5 to 3 times as fast for 1 to 16 rows."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.dtype = weight.dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)

    def forward(self, x: Tensor) -> Tensor:  # [..., d] -> [..., f]
        product = torch.ops.mkldnn._linear_pointwise
        return product(x.to(self.dtype), self.weight, None, "none", [], "").to(x.dtype)  # type: ignore[no-any-return]


class Int8Linear(nn.Module):
    """Weights as int8 with a scale per output; products are in bfloat16 where that is fast."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        scale = weight.float().abs().amax(1).clamp_min(1e-12) / 127
        self.weight = (weight.float() / scale[:, None]).round().to(torch.int8)  # [f, d]
        self.scale = scale.bfloat16()  # [f]

    def forward(self, x: Tensor) -> Tensor:  # [..., d] -> [..., f]
        rows = x.reshape(-1, x.shape[-1])
        # PyTorch's product reads past the end of rows that are no multiple of 16.
        if len(rows) <= INT8_ROWS and rows.shape[1] % 16 == 0:
            out = torch._weight_int8pack_mm(rows.bfloat16(), self.weight, self.scale)
        else:
            dtype = _dtype_of_many(torch.bfloat16, rows)
            out = F.linear(rows.to(dtype), self.weight.to(dtype)).mul_(self.scale)
        return out.unflatten(0, x.shape[:-1]).to(x.dtype)
