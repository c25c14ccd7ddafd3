"""What is made by hand, as operators of PyTorch: ``torch.compile`` sees each as one operation.

Every operator has a form for any device, and the faster one in Triton where there is a GPU that it
runs on. All take sorted ids, so sums over the rows of a segment come in one order, every run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from blt.model.kernels import crossing, host, segments

MOST_SLICES = 8  # of a patch: the kernels hold all of them in registers


def in_triton(x: Tensor, name: str, slices: int = 1) -> Any:
    """The kernels of that name for the device of ``x``; None: the form for any device is taken."""
    if x.dtype == torch.float64 or slices > MOST_SLICES:
        return None
    return kernels(name) if usable(x.device) else None


def kernels(name: str) -> Any:
    """A file of kernels for GPUs; late, since Triton need not be installed."""
    return import_module(f"blt.model.kernels.gpu.{name}")


@cache
def usable(device: torch.device) -> bool:
    """Do the kernels work there? Triton needs a C compiler, and a GPU that it knows."""
    if device.type != "cuda":
        return False
    if find_spec("triton") is None:
        reason = "it is not installed"
    else:
        try:
            one = torch.ones(1, 2, dtype=torch.float32, device=device)
            kernels("segment_max").forward(one, torch.arange(2, device=device))
            return True
        except Exception as error:  # of whatever kind: the form for any device is as right
            reason = " ".join(str(error).split())[:300]
    logging.getLogger("blt").warning(
        "Triton does not work here, so its kernels are left: %s", reason
    )
    return False


def first_rows(ids: Tensor, count: int) -> Tensor:
    """Sorted ids [N] of ``count`` segments → the first row of each, and N  # [count + 1] int64."""
    numbers = torch.arange(count + 1, dtype=ids.dtype, device=ids.device)
    return torch.searchsorted(ids, numbers)


# --- causal attention over packed documents, where there is no flash attention --------------------


@custom_op("blt::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int | None) -> Tensor:
    """q (scaled), k, v [N, H, D], documents' offsets [documents + 1] → [N, H, D]."""
    return host.attention(q, k, v, tuple(cu_seqlens.tolist()), window).contiguous()


@custom_op("blt::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    grads = host.attention_backward(grad, q, k, v, tuple(cu_seqlens.tolist()), window)
    dq, dk, dv = (grad.contiguous() for grad in grads)
    return dq, dk, dv


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int | None) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv


def _keep_attention(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.window = inputs
    ctx.save_for_backward(*tensors)


def _attention_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return *attention_backward(grad, *ctx.saved_tensors, ctx.window), None, None


attention.register_autograd(_attention_gradients, setup_context=_keep_attention)


# --- what cross-attention has in common, both ways ---------------------------------------------


def _differentiate(forward: Any, backward: Any, keep: Callable[..., None]) -> None:
    """Give an operator over q, k, v, ids, heads and scale its gradients: those of q, k and v.

    Args:
        keep: saves the tensors that ``backward`` takes after the gradient.
    """

    def gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
        tensors = (grad.contiguous(), *ctx.saved_tensors)
        return *backward(*tensors, ctx.heads, ctx.scale), None, None, None

    def fake(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, ...]:
        return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)

    backward.register_fake(fake)
    forward.register_autograd(gradients, setup_context=keep)


# --- k queries of a patch, and the bytes of that patch ----------------------------------------


@custom_op("blt::attend_to_own_bytes", mutates_args=())
def attend_to_own_bytes(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """q [P, k, d], k and v [N, d], sorted ids [N] → [P, k, d]; and what backward needs, float32."""
    gpu = in_triton(q, "own_bytes", q.shape[1])
    if gpu is None:
        return crossing.own_bytes(q, k, v, patch_ids, heads, scale)
    offsets = first_rows(patch_ids, len(q))
    return gpu.forward(q, k, v, offsets, heads, scale)  # type: ignore[no-any-return]


@custom_op("blt::attend_to_own_bytes_backward", mutates_args=())
def attend_to_own_bytes_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    patch_ids: Tensor,
    out: Tensor,
    kept: Tensor,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    gpu = in_triton(q, "own_bytes", q.shape[1])
    if gpu is None:
        return crossing.own_bytes_backward(grad, q, k, v, patch_ids, kept, heads, scale)
    offsets = first_rows(patch_ids, len(q))
    return gpu.backward(  # type: ignore[no-any-return]
        grad, q, k, v, out, kept, offsets, heads, scale
    )


@attend_to_own_bytes.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    slices, exact = q.shape[1], crossing.exact(k.dtype)
    shape = (
        (k.shape[0], slices * heads)
        if in_triton(q, "own_bytes", slices) is None
        else (q.shape[0], slices, heads)
    )
    return q.new_empty(q.shape, dtype=v.dtype), q.new_empty(shape, dtype=exact)


def _keep_own_bytes(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.heads, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


_differentiate(attend_to_own_bytes, attend_to_own_bytes_backward, _keep_own_bytes)


# --- bytes, and the k slices of the one patch that each sees ---------------------------------


@custom_op("blt::attend_to_own_patch", mutates_args=())
def attend_to_own_patch(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """q [N, d], k and v [P, k, d], sorted ids [N] → [N, d]; and what backward needs, float32."""
    gpu = in_triton(q, "own_patch", k.shape[1])
    if gpu is None:
        return crossing.own_patch(q, k, v, patch_ids, heads, scale)
    return gpu.forward(q, k, v, patch_ids, heads, scale)  # type: ignore[no-any-return]


@custom_op("blt::attend_to_own_patch_backward", mutates_args=())
def attend_to_own_patch_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    patch_ids: Tensor,
    kept: Tensor,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    gpu = in_triton(q, "own_patch", k.shape[1])
    if gpu is None:
        return crossing.own_patch_backward(grad, q, k, v, patch_ids, kept, heads, scale)
    offsets = first_rows(patch_ids, len(k))
    return gpu.backward(  # type: ignore[no-any-return]
        grad, q, k, v, offsets, kept, heads, scale
    )


@attend_to_own_patch.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    slices = k.shape[1]
    shape = (
        (slices, q.shape[0], heads)
        if in_triton(q, "own_patch", slices) is None
        else (q.shape[0], slices, heads)
    )
    return torch.empty_like(q), q.new_empty(shape, dtype=crossing.exact(q.dtype))


def _keep_own_patch(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.heads, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[1])


_differentiate(attend_to_own_patch, attend_to_own_patch_backward, _keep_own_patch)


# --- pooling ----------------------------------------------------------------------------------


@custom_op("blt::segment_max", mutates_args=())
def segment_max(x: Tensor, ids: Tensor, count: int) -> Tensor:
    """x [N, d], sorted ids [N] of ``count`` segments, none of them empty → maxima [count, d]."""
    gpu = in_triton(x, "segment_max")
    if gpu is None:
        return segments.peaks(x, ids, count)
    return gpu.forward(x, first_rows(ids, count))  # type: ignore[no-any-return]


@custom_op("blt::segment_max_backward", mutates_args=())
def segment_max_backward(grad: Tensor, x: Tensor, ids: Tensor, peak: Tensor) -> Tensor:
    gpu = in_triton(x, "segment_max")
    if gpu is None:
        return segments.peaks_backward(grad, x, ids, peak)
    offsets = first_rows(ids, len(peak))
    return gpu.backward(grad, x, peak, offsets)  # type: ignore[no-any-return]


@segment_max.register_fake
def _(x: Tensor, ids: Tensor, count: int) -> Tensor:
    return x.new_empty(count, x.shape[1])


@segment_max_backward.register_fake
def _(grad: Tensor, x: Tensor, ids: Tensor, peak: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=grad.dtype)


def _keep_peaks(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2], output)


def _peaks_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return segment_max_backward(grad.contiguous(), *ctx.saved_tensors), None, None


segment_max.register_autograd(_peaks_gradients, setup_context=_keep_peaks)
