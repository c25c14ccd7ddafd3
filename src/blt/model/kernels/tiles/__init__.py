"""Causal attention in C++, forward and backward: tiles whose scores stay in cache (float32, CPU).

What :mod:`blt.model.kernels.blocks` does, without copies, and without the keys that no query of a
block sees: what it computes is the same but for rounding.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from blt.machine import cpp
from blt.model.kernels.rows import longest

SOURCE = Path(__file__).with_name("attention.cpp")
MOST_KEYS = 8192  # of a document without a window: a block keeps the scores of all of them
NO_WINDOW = 1 << 62


class _Rows(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("row", ctypes.c_int64), ("head", ctypes.c_int64)]


class _Task(ctypes.Structure):
    _fields_ = [
        *((name, _Rows) for name in ("q", "k", "v", "g")),
        *((name, ctypes.c_void_p) for name in ("out", "dq", "dk", "dv", "offsets")),
        *((name, ctypes.c_int64) for name in ("documents", "heads", "dim", "window")),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where C++ is turned off or cannot be compiled."""
    loaded = cpp.compiled(SOURCE, "attention runs in PyTorch, and training is slower")
    if loaded is not None:
        loaded.blt_lanes.restype = ctypes.c_int64
        loaded.blt_attention.restype = loaded.blt_attention_backward.restype = None
    return loaded


def fits(q: Tensor, offsets: tuple[int, ...], window: int | None) -> bool:
    """Can the kernels take it? Not where something watches PyTorch's operations, or fakes them."""
    if not (type(q) is Tensor and q.is_cpu and q.dtype is torch.float32):
        return False
    if _get_current_dispatch_mode() is not None or len(q) == 0:
        return False
    if window is None and longest(offsets) > MOST_KEYS:
        return False
    if torch.get_num_threads() > 1 and not cpp.shares_threads():
        return False
    return library() is not None


def attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: tuple[int, ...], window: int | None
) -> Tensor:
    """q (scaled), k, v [N, H, D], documents' offsets [documents + 1] → [N, H, D]."""
    width = q.shape[-1]
    q, k, v = (_in_vectors(x) for x in (q, k, v))
    out = q.new_empty(q.shape)
    task = _task(q, k, v, offsets, window)
    task.out = out.data_ptr()
    _library().blt_attention(ctypes.byref(task), _threads())
    return _narrowed(out, width)


def attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: tuple[int, ...],
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v of :func:`attention`; probabilities are computed again."""
    width = q.shape[-1]
    grad, q, k, v = (_in_vectors(x) for x in (grad, q, k, v))
    dq, dk, dv = (q.new_empty(q.shape) for _ in range(3))
    task = _task(q, k, v, offsets, window)
    task.g = _rows(grad)
    task.dq, task.dk, task.dv = dq.data_ptr(), dk.data_ptr(), dv.data_ptr()
    _library().blt_attention_backward(ctypes.byref(task), _threads())
    return _narrowed(dq, width), _narrowed(dk, width), _narrowed(dv, width)


def _task(q: Tensor, k: Tensor, v: Tensor, offsets: tuple[int, ...], window: int | None) -> _Task:
    starts = (ctypes.c_int64 * len(offsets))(*offsets)
    task = _Task(*map(_rows, (q, k, v)))
    task.offsets = ctypes.cast(starts, ctypes.c_void_p)
    task.starts = starts  # kept alive
    task.documents, task.heads, task.dim = len(offsets) - 1, q.shape[1], q.shape[2]
    task.window = NO_WINDOW if window is None else window
    return task


def _in_vectors(x: Tensor) -> Tensor:
    """Each head's numbers one after the other, with zeros up to whole vectors."""
    if missing := -x.shape[-1] % _library().blt_lanes():
        return F.pad(x, (0, missing))
    return x if x.stride(-1) == 1 else x.contiguous()


def _narrowed(x: Tensor, width: int) -> Tensor:
    """Without those zeros; rows lie one after the other."""
    return x if x.shape[-1] == width else x[..., :width].contiguous()


def _rows(x: Tensor) -> _Rows:
    return _Rows(x.data_ptr(), x.stride(0), x.stride(1))


def _library() -> ctypes.CDLL:
    loaded = library()
    assert loaded is not None
    return loaded


def _threads() -> ctypes.c_int64:
    return ctypes.c_int64(torch.get_num_threads())
