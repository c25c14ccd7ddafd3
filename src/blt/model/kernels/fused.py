"""A layer's formulas for many rows on a CPU: fewer passes over memory, less kept for backward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.model.kernels.plain import rotated, swiglu
from blt.model.kernels.rows import FF_CHUNK, chunks


class AddNorm(torch.autograd.Function):
    """x + delta and its RMSNorm; without delta, the norm alone.

    PyTorch has no fused backward on CPUs: sum and norm took 8.0 ms at [8192, 256], here 4.9.
    Keeps its output, which the product after it keeps anyway, instead of its wider input.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor]:
        total = x
        if delta is not None:
            total = torch.empty_like(x, dtype=torch.promote_types(x.dtype, delta.dtype))
        exact = torch.promote_types(total.dtype, torch.float32)
        out, scale = torch.empty_like(x, dtype=dtype), x.new_empty(*x.shape[:-1], 1, dtype=exact)
        for rows in chunks(x):
            if delta is not None:
                torch.add(x[rows], delta[rows], out=total[rows])
            wide = total[rows].to(exact)
            norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            torch.rsqrt(norm.square_().div_(x.shape[-1]).add_(eps), out=scale[rows])
            out[rows] = (wide * scale[rows]).mul_(weight)
        ctx.save_for_backward(out, weight, scale)
        ctx.dtypes = (x.dtype, total.dtype, None if delta is None else delta.dtype)
        ctx.set_materialize_grads(False)
        return (None if delta is None else total), out

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, d_total: Tensor | None, d_out: Tensor
    ) -> tuple[Tensor | None, ...]:
        out, weight, scale = ctx.saved_tensors
        x_dtype, total_dtype, delta_dtype = ctx.dtypes
        wide_weight = weight.to(scale.dtype)
        # A weight of 0, or one whose inverse is infinite, hides what it scaled: its own gradient is
        # taken as 0.
        tiny = wide_weight.abs() < torch.finfo(wide_weight.dtype).tiny
        inverse = torch.where(tiny, 0.0, 1.0 / wide_weight)
        d_weight, d_x = torch.zeros_like(wide_weight), torch.empty_like(out, dtype=total_dtype)
        d_delta = None if delta_dtype is None else torch.empty_like(out, dtype=delta_dtype)
        for rows in chunks(out):
            grad, wide = d_out[rows].to(scale.dtype), out[rows].to(scale.dtype)
            along = grad * wide
            d_weight += along.flatten(0, -2).sum(0)
            wide.mul_(inverse).mul_(along.mean(-1, keepdim=True))
            grad = grad.mul(wide_weight).sub_(wide).mul_(scale[rows])
            d_x[rows] = grad if d_total is None else grad.add_(d_total[rows])
            if d_delta is not None:
                d_delta[rows] = d_x[rows]
        return d_x.to(x_dtype), d_delta, d_weight.mul_(inverse).to(weight.dtype), None, None


class RotatedQueriesKeys(torch.autograd.Function):
    """qkv [N, 3, H, D] → q, k rotated and v, each [N, H, D]; one gradient buffer for the three."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(rope)
        q, k, v = (torch.empty_like(qkv[:, 0]) for _ in range(3))
        for rows in chunks(qkv):
            q[rows] = rotated(qkv[rows, 0], rope[rows, 0])
            k[rows] = rotated(qkv[rows, 1], rope[rows, 1])
            v[rows] = qkv[rows, 2]
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (rope,) = ctx.saved_tensors
        dq, dk, dv = grads
        rope = rope * rope.new_tensor((1.0, -1.0))  # back: the other way round
        out = dv.new_empty(len(dv), 3, *dv.shape[1:])
        for rows in chunks(out):
            out[rows, 0] = rotated(dq[rows], rope[rows, 0])
            out[rows, 1] = rotated(dk[rows], rope[rows, 1])
            out[rows, 2] = dv[rows]
        return out, None


class SwiGLUDown(torch.autograd.Function):
    """(silu(gate) * up) @ down.T of gate_up [N, 2 f]; computes the product again in backward."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, down)
        down = down.to(gate_up.dtype)
        out = gate_up.new_empty(len(gate_up), len(down))
        for rows in chunks(gate_up, FF_CHUNK):
            out[rows] = F.linear(swiglu(gate_up[rows]), down)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        gate_up, down = ctx.saved_tensors
        d_gate_up, product = torch.empty_like(gate_up), grad.new_empty(len(grad), down.shape[1])
        for rows in chunks(gate_up, FF_CHUNK):
            gate, up = (part.contiguous() for part in gate_up[rows].chunk(2, dim=-1))
            d_gate, d_up = d_gate_up[rows].chunk(2, dim=-1)
            gated = F.silu(gate)
            torch.mul(gated, up, out=product[rows])
            d_product = grad[rows] @ down.to(grad.dtype)
            d_up.copy_(gated.mul_(d_product))
            d_gate.copy_(torch.ops.aten.silu_backward(d_product.mul_(up), gate))
        if not ctx.needs_input_grad[1]:
            return d_gate_up, None
        return d_gate_up, (grad.t() @ product).to(down.dtype)
