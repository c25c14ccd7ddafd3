"""Linear layers with weights as generation reads them: narrow, or laid out for few rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.machine.precision import choose_dtype

INT8_ROWS = 16  # up to here the int8 product is the fastest; above, one in bfloat16


class CastLinear(nn.Module):
    """A product in the weights' precision, returned in that of its input."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:  # [..., d] -> [..., f]
        dtype = _dtype_of_many(self.weight.dtype, x)
        return F.linear(x.to(dtype), self.weight.to(dtype)).to(x.dtype)

    def of_many_rows(self) -> ManyRowsLinear:
        return ManyRowsLinear(self.weight, self.weight.dtype)


class ManyRowsLinear(nn.Module):
    """A product that asks nothing of the number of its rows, so that a graph can hold it.

    Args:
        weight: [f, d] shared with who writes.
        narrow: what the weight is rounded to.
        scale: [f] of the weight, where it is of whole numbers.
    """

    def __init__(self, weight: Tensor, narrow: torch.dtype, scale: Tensor | None = None) -> None:
        super().__init__()
        # Sizes of parameters are constants to a graph; those of other tensors it would leave open.
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = None if scale is None else nn.Parameter(scale, requires_grad=False)
        self.narrow = self.dtype = narrow
        if narrow != torch.float32:
            self.dtype = choose_dtype("auto", weight.device)

    def forward(self, x: Tensor) -> Tensor:  # [..., d] -> [..., f]
        out = F.linear(x.to(self.dtype), self.weight.to(self.narrow).to(self.dtype))
        return (out if self.scale is None else out * self.scale).to(x.dtype)


def _dtype_of_many(narrow: torch.dtype, x: Tensor) -> torch.dtype:
    """For products of many rows: float32 where narrow numbers are only emulated."""
    few = x.numel() <= INT8_ROWS * x.shape[-1]
    return narrow if few or narrow == torch.float32 else choose_dtype("auto", x.device)


class PackedLinear(nn.Module):
    """The same with weights in oneDNN's own layout: 1.5 to 3 times as fast for 1 to 16 rows.

    Args:
        weight: [f, d] as the model has it.
        dtype: what it is rounded to.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.plain = dtype, weight
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), 1)

    def forward(self, x: Tensor) -> Tensor:  # [..., d] -> [..., f]
        product = torch.ops.mkldnn._linear_pointwise
        return product(x.to(self.dtype), self.weight, None, "none", [], "").to(x.dtype)  # type: ignore[no-any-return]

    def of_many_rows(self) -> ManyRowsLinear:
        return ManyRowsLinear(self.plain, self.dtype)


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

    def of_many_rows(self) -> ManyRowsLinear:
        return ManyRowsLinear(self.weight, torch.bfloat16, self.scale)
