"""Keys and values of the global transformer, which sees all patches: they grow with the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from blt.generate.caches.layout import CacheLayers, Layout
from blt.model.kernels.causal import attention, attention_after
from blt.model.layers import Transformer

FIRST_PATCHES = 64  # room for patches at first
GROWTH = 4  # when it is full, there is a fourth more


class PatchMemory:
    """Keys and values of all patches of one sequence.

    Attributes:
        memory: [layers, 2, H, room, D]
        length: patches that are complete; what lies behind them may be taken back.
    """

    def __init__(self, transformer: Transformer, dtype: torch.dtype) -> None:
        shape = (transformer.depth, 2, transformer.kv_heads, FIRST_PATCHES, transformer.head_dim)
        device = next(transformer.parameters()).device
        self.memory = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    @staticmethod
    def bytes_of(patches: int, transformer: Transformer, dtype: torch.dtype) -> int:
        """Memory for so many patches at most."""
        width = transformer.kv_heads * transformer.head_dim
        room = max(FIRST_PATCHES, patches + patches // GROWTH)
        return room * 2 * transformer.depth * width * dtype.itemsize

    def reserve(self, patches: int) -> None:
        """Make room for so many more."""
        room = self.memory.shape[3]
        if self.length + patches > room:
            shape = list(self.memory.shape)
            shape[3] = max(room + room // GROWTH, self.length + patches)
            grown = self.memory.new_empty(shape)
            grown[:, :, :, : self.length] = self.memory[:, :, :, : self.length]
            self.memory = grown

    def keep(self, new: Tensor) -> None:
        """Take the first patches' keys and values [layers, 2, P, H, D]."""
        self.reserve(new.shape[2])
        self.memory[:, :, :, : new.shape[2]] = new.transpose(2, 3)
        self.length = new.shape[2]

    def copy(self, dtype: torch.dtype | None = None) -> PatchMemory:
        """Another with the same patches, in ``dtype`` or its own."""
        other = object.__new__(PatchMemory)
        other.memory = self.memory[:, :, :, : max(self.length, 1)].to(dtype=dtype, copy=True)
        other.length = self.length
        return other


@dataclass(frozen=True)
class PatchStep:
    """New patches of several sequences end to end: the same for all layers."""

    memories: Sequence[PatchMemory]
    counts: Sequence[int]  # new patches of each
    positions: Tensor  # [P]

    def caches(self) -> CacheLayers:
        return CacheLayers(self, range(len(self.memories[0].memory)))

    def layer(self, layer: int) -> PatchLayer:
        return PatchLayer(self, layer)

    @cached_property
    def layout(self) -> Layout:
        stores = [memory.memory for memory in self.memories]
        # C++ is told one type for all; another's memory would be read and written beyond its end.
        assert len({store.dtype for store in stores}) == 1
        return Layout(
            self.positions,
            None,
            torch.tensor(
                [i for i, count in enumerate(self.counts) for _ in range(count)],
                dtype=torch.int64,
                device="cpu",
            ),
            torch.tensor([store.data_ptr() for store in stores], dtype=torch.int64, device="cpu"),
            torch.tensor([store.shape[3] for store in stores], dtype=torch.int64, device="cpu"),
            stores[0].dtype,
        )


@dataclass(frozen=True)
class PatchLayer:
    step: PatchStep
    layer: int

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [P, H, D]
        parts = []
        news = (x.split(list(self.step.counts)) for x in (q, k, v))
        for store, query, key, value in zip(self.step.memories, *news, strict=True):
            seen = store.length + len(query)
            keys, values = store.memory[self.layer]
            keys[:, store.length : seen] = key.transpose(0, 1)
            values[:, store.length : seen] = value.transpose(0, 1)
            keys, values = (x[:, :seen].transpose(0, 1) for x in (keys, values))
            parts.append(attention_after(query.to(keys.dtype), keys, values))
        return torch.cat(parts).to(q.dtype)


@dataclass(frozen=True)
class PatchPrefill:
    """One layer of the global transformer in a packed forward of whole documents."""

    layer: int
    memories: Sequence[PatchMemory]
    offsets: tuple[int, ...]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [P, H, D]
        for store, (start, end) in zip(self.memories, pairwise(self.offsets), strict=True):
            for memory, new in zip(store.memory[self.layer], (k, v), strict=True):
                memory[:, : end - start] = new[start:end].transpose(0, 1)
        return attention(q, k, v, self.offsets)
