"""Weights in int8 with a scale for each row, as our own layout stores them.

A tensor NAME of int8 has beside it NAME.scale, float32, of one number for each of its rows: its
values are the product of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blt.errors import UserError
from blt.files.stored import Stored
from blt.files.tensors import Spec, Tensors

SCALE = ".scale"  # behind the name of the tensor whose rows they scale
MOST = 127  # of what is rounded, either way
LARGEST = torch.finfo(torch.float32).max / 128  # a scale: its products are finite
AGAIN = "restore it, or write it again with `blt convert` from the model that it was made from"


class Quantised(Tensors):
    """Tensors of two dimensions or more rounded to int8, and their scales; the others as they are.

    Args:
        source: without tensors of int8; what is rounded may be in any float.
    """

    def __init__(self, source: Tensors) -> None:
        self.source = source
        self.specs, self.scaled = {}, {}  # name of scales → of their tensor
        for name, spec in source.specs.items():
            rounded = spec.dtype.is_floating_point and len(spec.shape) > 1
            self.specs[name] = Spec(torch.int8, spec.shape) if rounded else spec
            if rounded:
                self.scaled[name + SCALE] = name
                self.specs[name + SCALE] = Spec(torch.float32, spec.shape[:1])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        spec, tensor = self.specs[name], self.scaled.get(name, name)
        wide = self.source.specs[tensor]
        if spec == wide:
            return self.source.rows(name, start, stop)
        out = torch.empty((stop - start, *spec.shape[1:]), dtype=spec.dtype, device="cpu")
        for a, b in Spec(wide.dtype, (stop - start, *wide.shape[1:])).blocks():
            rows = self.source.rows(tensor, start + a, start + b).float().flatten(1)
            scales = rows.abs().amax(1) / MOST
            out[a:b] = scales if name in self.scaled else _rounded(rows, scales).view_as(out[a:b])
        return out


def _rounded(rows: Tensor, scales: Tensor) -> Tensor:
    """The nearest whole numbers of scales, halves to even  # [n, d], [n] -> [n, d] int8."""
    scales = scales.where(scales > 0, 1)  # rows of zeros
    return (rows / scales[:, None]).round_().clamp_(-MOST, MOST).to(torch.int8)


class Dequantised(Tensors):
    """The tensors of a folder, those of int8 as float32; their scales are read at once.

    Raises:
        UserError: an int8 tensor without scales, or scales that are not for one.
    """

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.kept = {name: x for name, x in stored.specs.items() if not name.endswith(SCALE)}
        self.scales = {
            name.removesuffix(SCALE): _scales(stored, name)
            for name in stored.specs
            if name.endswith(SCALE)
        }
        self.specs = dict(self.kept)
        for name, spec in self.kept.items():
            if spec.dtype == torch.int8:
                if name not in self.scales:
                    raise UserError(
                        f"{stored.entries[name].path}: tensor {name!r} is int8, and its scales "
                        f"{name + SCALE!r} are missing; {AGAIN}"
                    )
                self.specs[name] = Spec(torch.float32, spec.shape)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        if name not in self.scales:
            return self.stored.rows(name, start, stop)
        spec, scales = self.specs[name], self.scales[name][start:stop]
        out = torch.empty((stop - start, *spec.shape[1:]), dtype=spec.dtype, device="cpu")
        for a, b in Spec(spec.dtype, tuple(out.shape)).blocks():
            rows = self.stored.rows(name, start + a, start + b).flatten(1)
            torch.mul(rows, scales[a:b, None], out=out[a:b].flatten(1))
        return out

    def read(self, name: str) -> Tensor:
        return super().read(name) if name in self.scales else self.stored.read(name)


def _scales(stored: Stored, name: str) -> Tensor:
    """Scales of the rows of a tensor  # [n] float32.

    Raises:
        UserError: no scales, or of no int8 tensor.
    """
    spec, tensor = stored.specs[name], name.removesuffix(SCALE)
    of, where = stored.specs.get(tensor), f"{stored.entries[name].path}: tensor {name!r}"
    if of is None or of.dtype != torch.int8 or len(of.shape) < 2:
        raise UserError(f"{where} has scales for {tensor!r}, which is no int8 matrix; {AGAIN}")
    if spec != Spec(torch.float32, of.shape[:1]):
        raise UserError(
            f"{where} is {spec.dtype} of shape {spec.shape}; scales of {tensor!r} are "
            f"{torch.float32} of shape {of.shape[:1]}; {AGAIN}"
        )
    found = stored.read(name)
    if not ((found >= 0) & (found <= LARGEST)).all():
        raise UserError(f"{where} has scales below 0, or too large; {AGAIN}")
    return found


def types_in_files(tensors: Tensors) -> str:
    """Names of the types that weights are stored in, such as "float32, int8"; scales are none."""
    specs = tensors.kept if isinstance(tensors, Dequantised) else tensors.specs
    types = {spec.dtype for spec in specs.values()} - {torch.bool}  # tables
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
