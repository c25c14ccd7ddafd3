"""A GPU that is not there: tensors that say they are on ``gpu:0``, and are computed on the CPU.

What a GPU would refuse is refused: operations on tensors of both devices, and NumPy's view of a
tensor that is not on the CPU. Single numbers on the CPU go with anything, and indices into a tensor
there may be on the CPU, as on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from blt.machine import precision

GPU = "gpu"
aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}  # from one device to another
INDEXES = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}


@contextlib.contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Inside the block there is a device ``gpu``."""
    _register()
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor: on the CPU first, then moved
    # Wrapped tensors do not know inference mode.
    plain = {name: getattr(torch.no_grad, name) for name in ("__enter__", "__exit__")}
    try:
        known = mock.patch.object(precision, "DEVICES", (*precision.DEVICES, GPU))
        with known, mock.patch.multiple(torch.inference_mode, **plain), _Pretending():
            yield torch.device(GPU)
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


@cache
def _register() -> None:
    _setup_privateuseone_for_python_backend(GPU)
    getattr(torch, GPU).get_amp_supported_dtype = lambda: [torch.bfloat16]  # autocast asks


class There(Tensor):
    """A tensor on the pretended device."""

    held: Tensor  # its numbers

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        made: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(GPU, 0),
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError("can't convert gpu:0 device type tensor to numpy")

    def __array__(self, *_: object, **__: object) -> Any:
        return self.numpy()

    def __repr__(self, **_: object) -> str:
        return f"There({self.held!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Pretending(TorchDispatchMode):
    """Makes tensors there where ``device="gpu"`` is asked for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the tensors that are held; what it makes is where it would be."""
    flat, spec = tree_flatten((args, kwargs))
    there = [x for x in flat if isinstance(x, There)]
    if there and func not in MOVES:
        _refuse_both(func, [x for x in flat if isinstance(x, Tensor)])
    held = [x.held if isinstance(x, There) else x for x in flat]
    args, kwargs = tree_unflatten(held, spec)
    asked = kwargs.get("device")
    if asked is not None and torch.device(asked).type == GPU:
        kwargs["device"] = "cpu"
    with _disable_current_modes():
        out = func(*args, **kwargs)
    if func is aten.copy_.default:
        return flat[0]
    if not (there if asked is None else torch.device(asked).type == GPU):
        return out
    changed = {id(x.held): x for x in there}  # in place
    return tree_map_only(Tensor, lambda x: changed[id(x)] if id(x) in changed else There(x), out)


def _refuse_both(func: Any, tensors: list[Tensor]) -> None:
    for at, x in enumerate(tensors):
        index = func in INDEXES and at > 0 and x.dtype in (torch.int64, torch.bool)
        if not isinstance(x, There) and x.dim() > 0 and not index:
            raise RuntimeError(f"{func}: expected all tensors on one device, found gpu:0 and cpu")
