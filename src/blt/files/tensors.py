"""Tensors by name that are read in parts: a model larger than memory can pass through."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from blt.errors import UserError

BLOCK_BYTES = 64 * 2**20  # held in memory at once


@dataclass(frozen=True)
class Spec:
    """What is known of a tensor before it is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First row and end of parts of about BLOCK_BYTES."""
        rows = self.shape[0]
        step = max(1, BLOCK_BYTES * rows // max(1, self.nbytes))
        for start in range(0, rows, step):
            yield start, min(start + step, rows)


class Tensors:
    """Names and shapes of tensors that all have a first dimension, and their rows on demand."""

    specs: Mapping[str, Spec]

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of a tensor, in memory."""
        raise NotImplementedError

    def read(self, name: str) -> Tensor:
        """A whole tensor; a huge one may be mapped into memory instead."""
        return self.rows(name, 0, self.specs[name].shape[0])

    def origin(self, name: str) -> str:
        """What a tensor is called where it comes from, for messages."""
        return name


def check_finite(tensor: Tensor, where: str, name: str) -> None:
    """Refuse weights that are no numbers: every text would have none either.

    Raises:
        UserError: names the tensor.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return
    if not all(map(math.isfinite, torch.stack(tensor.aminmax()).tolist())):  # one pass
        raise UserError(
            f"{where}: tensor {name!r} has values that are not finite: damaged, or of a training "
            "that diverged; restore it, or take an earlier checkpoint"
        )


class UnwrittenError(UserError, OSError):
    """A file that could not be written: no such folder, no room on the disk, ..."""


@contextmanager
def unwritten(path: Path) -> Iterator[None]:
    """What goes wrong inside names the file that was to be written: a full disk names none.

    Raises:
        UnwrittenError: names the file.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        said = f"{path}: cannot be written ({error}); check folder and disk"
        raise UnwrittenError(said) from None


def save_whole(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        UnwrittenError: names the file.
    """
    with unwritten(path):
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)


def widest(tensors: Tensors) -> str:
    """Name of the widest dtype among them, such as "bfloat16"."""
    dtype = max((spec.dtype for spec in tensors.specs.values()), key=lambda dtype: dtype.itemsize)
    return str(dtype).removeprefix("torch.")


class Held(Tensors):
    """Tensors that are in memory, or mapped into it.

    Args:
        where: they come from, for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], where: str = "weights") -> None:
        self.tensors, self.where = tensors, where
        self.specs = {name: Spec(t.dtype, tuple(t.shape)) for name, t in tensors.items()}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        found = self.tensors[name][start:stop]
        check_finite(found, self.where, name)
        return found


@dataclass(frozen=True)
class Piece:
    """Of ``parts`` equal runs of rows of a tensor, ``many`` from number ``part`` on.

    Runs of pieces that lie one below the other have the same length.
    """

    name: str
    part: int = 0
    parts: int = 1
    many: int = 1


class Rearranged(Tensors):
    """Tensors made of pieces of others, one below the other.

    Raises:
        UserError: pieces that are not there, or do not have the same shape; names them.
    """

    def __init__(
        self, source: Tensors, pieces: Mapping[str, Sequence[Piece]], where: object
    ) -> None:
        self.source, self.pieces = source, pieces
        self.specs = {name: self._spec(parts, where) for name, parts in pieces.items()}

    def _spec(self, pieces: Sequence[Piece], where: object) -> Spec:
        for piece in pieces:
            if piece.name not in self.source.specs:
                name = self.source.origin(piece.name)
                raise UserError(f"{where}: tensor {name!r} is missing; does the config belong?")
        specs = [self.source.specs[piece.name] for piece in pieces]
        names = " + ".join(self.source.origin(piece.name) for piece in pieces)
        runs = {
            (spec.dtype, Fraction(spec.shape[0], piece.parts), spec.shape[1:])
            for piece, spec in zip(pieces, specs, strict=True)
        }
        if len(runs) > 1:
            found = ", ".join(sorted({str(tuple(spec.shape)) for spec in specs}))
            raise UserError(f"{where}: {names}: differ in shape or precision: {found}")
        ((dtype, each, others),) = runs
        if each.denominator > 1:
            rows, parts = specs[0].shape[0], pieces[0].parts
            raise UserError(f"{where}: {names}: {rows} rows cannot be divided by {parts}")
        return Spec(dtype, (int(each) * sum(piece.many for piece in pieces), *others))

    def _run(self, piece: Piece) -> tuple[int, int]:
        """Its first row, and the one after its last."""
        each = self.source.specs[piece.name].shape[0] // piece.parts
        return piece.part * each, (piece.part + piece.many) * each

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        pieces, spec = self.pieces[name], self.specs[name]
        if len(pieces) == 1:
            first, _ = self._run(pieces[0])
            return self.source.rows(pieces[0].name, first + start, first + stop)
        out = torch.empty((stop - start, *spec.shape[1:]), dtype=spec.dtype, device="cpu")
        end = 0  # of the pieces so far
        for piece in pieces:
            first, last = self._run(piece)
            at, end = end, end + last - first
            low, high, first = max(start, at), min(stop, end), first - at
            for a, b in Spec(spec.dtype, (max(0, high - low), *spec.shape[1:])).blocks():
                rows = self.source.rows(piece.name, first + low + a, first + low + b)
                out[low + a - start : low + b - start] = rows
        return out

    def read(self, name: str) -> Tensor:
        (piece, *others) = self.pieces[name]
        if not others and piece.parts == 1:
            return self.source.read(piece.name)
        return super().read(name)

    def origin(self, name: str) -> str:
        return " + ".join(self.source.origin(piece.name) for piece in self.pieces[name])


class Joined(Tensors):
    """Two sets of tensors, the names of the second behind a prefix."""

    def __init__(self, first: Tensors, prefix: str, second: Tensors) -> None:
        self.first, self.prefix, self.second = first, prefix, second
        self.specs = {
            **first.specs,
            **{prefix + name: spec for name, spec in second.specs.items()},
        }

    def _home(self, name: str) -> tuple[Tensors, str]:
        if name in self.first.specs:
            return self.first, name
        return self.second, name.removeprefix(self.prefix)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        home, inner = self._home(name)
        return home.rows(inner, start, stop)

    def read(self, name: str) -> Tensor:
        home, inner = self._home(name)
        return home.read(inner)


class Cast(Tensors):
    """The same tensors in another precision."""

    def __init__(self, source: Tensors, dtype: torch.dtype) -> None:
        self.source, self.dtype = source, dtype
        self.specs = {
            name: Spec(dtype if spec.dtype.is_floating_point else spec.dtype, spec.shape)
            for name, spec in source.specs.items()
        }

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return self.source.rows(name, start, stop).to(self.specs[name].dtype)
