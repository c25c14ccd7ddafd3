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
