"""Weights as C++ reads them, and products of a few rows with them."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from blt.generate import cpp
from blt.generate.linears import CastLinear, Int8Linear, ManyRowsLinear
from blt.model.embedding import PRIMES, ByteEmbedding
from blt.model.layers import RMSNorm

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
MAX_NATIVE_ROWS = 160  # in one step; more are PyTorch's
MAX_THREADS = 16  # more wait for each other longer than they work


def library() -> ctypes.CDLL:
    loaded = cpp.library()
    assert loaded is not None
    return loaded


def threads() -> ctypes.c_int64:
    return ctypes.c_int64(min(torch.get_num_threads(), MAX_THREADS))


def address(tensor: Tensor, dtype: torch.dtype) -> int:
    """Where C++ finds the numbers of a tensor; it reads them as ``dtype``, one after the other.

    Raises:
        TypeError: they are of another kind, elsewhere, or not in order.
    """
    if tensor.dtype is not dtype or not tensor.is_cpu or not tensor.is_contiguous():
        layout = "contiguous" if tensor.is_contiguous() else "strided"
        raise TypeError(
            f"steps in C++ need contiguous {dtype} on a CPU, got {layout} {tensor.dtype} on "
            f"{tensor.device}, shape {list(tensor.shape)}"
        )
    return tensor.data_ptr()


def pointer(tensor: Tensor, dtype: torch.dtype = torch.float32) -> ctypes.c_void_p:
    return ctypes.c_void_p(address(tensor, dtype))


class NativeLinear(nn.Module):
    """Products of a few rows in C++; of many rows by ``inner``, which holds the weights."""

    def __init__(self, inner: CastLinear | Int8Linear) -> None:
        super().__init__()
        self.inner, self._kept = inner, Kept()
        self.native = self._kept.weight(inner)

    def forward(self, x: Tensor) -> Tensor:  # [..., d] -> [..., f]
        rows = x.numel() // x.shape[-1]
        if rows > MAX_NATIVE_ROWS:
            return self.inner(x)  # type: ignore[no-any-return]
        x = x.float().contiguous()
        y = x.new_empty(*x.shape[:-1], self.native.out)
        library().blt_product(
            ctypes.byref(self.native), pointer(x), ctypes.c_int64(rows), pointer(y), threads()
        )
        return y

    def of_many_rows(self) -> ManyRowsLinear:
        return self.inner.of_many_rows()


class Kept:
    """Turns parameters into what C++ reads, and keeps alive what only C++ refers to."""

    def __init__(self) -> None:
        self._objects: list[object] = []

    def tensor(self, tensor: Tensor, dtype: torch.dtype | None = None) -> int:
        """Address of its numbers, in order; None: of any kind that C++ is told."""
        kept = tensor.detach().contiguous()
        self._objects.append(kept)
        return address(kept, dtype or kept.dtype)

    def struct(self, struct: ctypes.Structure | ctypes.Array[Any]) -> int:
        """Address of a struct or an array of them."""
        self._objects.append(struct)
        return ctypes.addressof(struct)

    def norm(self, norm: Any) -> int:
        assert isinstance(norm, RMSNorm)
        return self.tensor(norm.weight.float())

    def weight(self, linear: Any) -> cpp.Weight:
        if isinstance(linear, NativeLinear):
            linear = linear.inner
        assert isinstance(linear, CastLinear | Int8Linear)
        scale = self.tensor(linear.scale.float()) if isinstance(linear, Int8Linear) else None
        data = self.tensor(linear.weight)
        return cpp.Weight(data, scale, KINDS[linear.weight.dtype], *linear.weight.shape)

    def bytes(self, table: Tensor) -> int:
        """Address of the embedding of single bytes [260, d]."""
        return self.struct(cpp.Embedding(bytes=self.tensor(table.float()), reach=1))

    def ngrams(self, table: ByteEmbedding) -> int:
        """Address of the embedding of bytes and n-grams; both tables must be float32."""
        embedding = cpp.Embedding(
            self.tensor(table.byte, torch.float32),
            self.tensor(table.ngram, torch.float32),
            self.tensor(torch.tensor(table.sizes, dtype=torch.int64, device="cpu")),
            self.tensor(torch.tensor(PRIMES, dtype=torch.int64, device="cpu")),
            len(table.sizes),
            table.functions,
            table.rows,
            table.reach,
        )
        return self.struct(embedding)


def with_native_products(model: nn.Module) -> None:
    """Let all packed weights of a model be multiplied in C++."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, CastLinear | Int8Linear) and not isinstance(module, NativeLinear):
                setattr(module, name, NativeLinear(child))


def is_native(model: nn.Module) -> bool:
    return any(isinstance(module, NativeLinear) for module in model.modules())
