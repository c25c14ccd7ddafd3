"""What generation keeps of the text it has read: keys and values, layer by layer.

Local models see a window of bytes, so theirs lie in rings of fixed size: position p at slot
``p % capacity``, and nothing is ever moved. A ring has room for more than the window: what was
written for bytes that are then taken back is older than the window when it is met again, and the
mask hides it. The global transformer sees all patches: its keys and values grow with the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.model.attention import attention
from blt.model.layers import Transformer

MAX_ROWS = 32  # bytes of one sequence in one step; rings have room for as many besides the window
FIRST_PATCHES = 64  # room for patches at first; doubled when it is full


class Ring:
    """Keys and values of the last bytes of a batch of sequences, one sequence per row.

    Attributes:
        memory: one tensor per layer [2, rows, H, capacity, D]: keys, values.
    """

    def __init__(self, transformers: Sequence[Transformer], rows: int, dtype: torch.dtype) -> None:
        like = transformers[0]
        assert like.window is not None, "only a sliding window fits into a ring"
        self.window, self.heads, self.capacity = like.window, like.heads, like.window + MAX_ROWS
        shape = (2, rows, self.heads, self.capacity, like.head_dim)
        device = next(like.parameters()).device
        depth = sum(transformer.depth for transformer in transformers)
        self.memory = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(depth)]

    @staticmethod
    def bytes_per_row(transformers: Sequence[Transformer], dtype: torch.dtype) -> int:
        """Memory for one sequence."""
        return sum(
            2 * t.depth * t.heads * t.head_dim * ((t.window or 0) + MAX_ROWS) * dtype.itemsize
            for t in transformers
        )

    def step(self, positions: Tensor, first: int = 0, starts: Tensor | None = None) -> RingStep:
        """Where the bytes at ``positions`` [B, n] go and what they see.

        Args:
            positions: index in the document, ascending along n; n <= MAX_ROWS.
            first: row of the first of the B sequences.
            starts: [B, n] each byte sees no position before this one; None: all that exist.
        """
        slots = torch.arange(self.capacity, device=positions.device)
        last = positions[:, -1:]
        held = last - (last - slots) % self.capacity  # [B, capacity] position that a slot holds
        oldest = (positions - self.window + 1).clamp_min_(0)
        if starts is not None:
            oldest = torch.maximum(oldest, starts)
        held = held[:, None]  # [B, 1, capacity]
        visible = (held <= positions[..., None]) & (held >= oldest[..., None])
        rows = torch.arange(first, first + len(positions), device=positions.device)[:, None]
        heads = torch.arange(self.heads, device=positions.device)
        block = (rows * self.heads + heads)[..., None] * self.capacity  # [B, H, 1]
        index = (block + (positions % self.capacity)[:, None]).flatten()
        bias = torch.zeros(visible.shape, dtype=self.memory[0].dtype, device=positions.device)
        bias.masked_fill_(~visible, -torch.inf)
        return RingStep(self, first, positions.shape, index, bias[:, None])

    def prefill(
        self, layers: slice, attended: tuple[int, ...], offsets: tuple[int, ...], first: int
    ) -> list[RingPrefill]:
        """Caches for a packed forward of whole documents, kept in rows from ``first`` on.

        Args:
            layers: which of the ring's.
            attended: offsets of the spans within which positions see each other.
            offsets: of documents.
            first: row of the first document.
        """
        return [
            RingPrefill(memory, self.window, attended, offsets, first)
            for memory in self.memory[layers]
        ]

    def copy_row(self, source: int, target: int) -> None:
        for memory in self.memory:
            memory[:, target] = memory[:, source]

    def save_row(self, row: int) -> list[Tensor]:
        return [memory[:, row].clone() for memory in self.memory]

    def load_row(self, row: int, saved: Sequence[Tensor]) -> None:
        for memory, part in zip(self.memory, saved, strict=True):
            memory[:, row] = part


@dataclass(frozen=True)
class RingStep:
    """One step of B sequences by n bytes each: the same for all layers of a ring."""

    ring: Ring
    first: int
    shape: torch.Size  # B, n
    index: Tensor  # [B * H * n] rows of a flat memory [rows * H * capacity, D]
    bias: Tensor  # [B, 1, n, capacity]

    def caches(self, layers: slice = slice(None)) -> list[RingLayer]:
        return [RingLayer(self, memory) for memory in self.ring.memory[layers]]


@dataclass(frozen=True)
class RingLayer:
    step: RingStep
    memory: Tensor  # [2, rows, H, capacity, D]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [B * n, H, D]
        first, (batch, n) = self.step.first, self.step.shape
        keys, values = self.memory.unbind()
        for memory, new in ((keys, k), (values, v)):
            rows = new.to(memory.dtype).unflatten(0, (batch, n)).transpose(1, 2)
            flat = memory.view(-1, memory.shape[-1])
            flat.index_copy_(0, self.step.index, rows.reshape(-1, memory.shape[-1]))
        attended = F.scaled_dot_product_attention(
            q.to(keys.dtype).unflatten(0, (batch, n)).transpose(1, 2),
            keys[first : first + batch],
            values[first : first + batch],
            attn_mask=self.step.bias,
            scale=1.0,  # the rotations of queries carry it
        )
        return attended.transpose(1, 2).flatten(0, 1).to(q.dtype)


@dataclass(frozen=True)
class RingPrefill:
    memory: Tensor  # [2, rows, H, capacity, D]
    window: int
    attended: tuple[int, ...]
    offsets: tuple[int, ...]
    first: int

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [N, H, D]
        capacity = self.memory.shape[-2]
        for row, (start, end) in enumerate(pairwise(self.offsets), self.first):
            kept = min(end - start, capacity)
            slots = torch.arange(end - start - kept, end - start, device=k.device) % capacity
            for memory, new in zip(self.memory, (k, v), strict=True):
                last = new[end - kept : end].transpose(0, 1).to(memory.dtype)
                memory[row].index_copy_(1, slots, last)
        return attention(q, k, v, self.attended, self.window)


class PatchMemory:
    """Keys and values of all patches of one sequence.

    Attributes:
        memory: [layers, 2, H, room, D]
        length: patches that are complete; what lies behind them may be taken back.
    """

    def __init__(self, transformer: Transformer, dtype: torch.dtype) -> None:
        shape = (transformer.depth, 2, transformer.heads, FIRST_PATCHES, transformer.head_dim)
        device = next(transformer.parameters()).device
        self.memory = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    @staticmethod
    def bytes_per_patch(transformer: Transformer, dtype: torch.dtype) -> int:
        width = transformer.heads * transformer.head_dim
        return 2 * transformer.depth * width * dtype.itemsize

    def reserve(self, patches: int) -> None:
        """Make room for so many more."""
        room = self.memory.shape[3]
        if self.length + patches > room:
            shape = list(self.memory.shape)
            shape[3] = max(2 * room, self.length + patches)
            grown = self.memory.new_empty(shape)
            grown[:, :, :, : self.length] = self.memory[:, :, :, : self.length]
            self.memory = grown

    def copy(self) -> PatchMemory:
        other = object.__new__(PatchMemory)
        other.memory = self.memory[:, :, :, : max(self.length, 1)].clone()
        other.length = self.length
        return other


@dataclass(frozen=True)
class PatchLayer:
    """One layer of the global transformer, for new patches of several sequences end to end."""

    layer: int
    memories: Sequence[PatchMemory]
    counts: Sequence[int]  # new patches of each

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [P, H, D]
        parts = []
        news = (x.split(list(self.counts)) for x in (q, k, v))
        for store, query, key, value in zip(self.memories, *news, strict=True):
            seen = store.length + len(query)
            keys, values = store.memory[self.layer]
            keys[:, store.length : seen] = key.transpose(0, 1)
            values[:, store.length : seen] = value.transpose(0, 1)
            bias = None if len(query) == 1 else _causal(len(query), seen, keys)
            attended = F.scaled_dot_product_attention(
                query.to(keys.dtype).transpose(0, 1)[None],
                keys[None, :, :seen],
                values[None, :, :seen],
                attn_mask=bias,
                scale=1.0,
            )
            parts.append(attended[0].transpose(0, 1))
        return torch.cat(parts).to(q.dtype)


def _causal(new: int, seen: int, like: Tensor) -> Tensor:
    """-inf where one of the ``new`` last of ``seen`` patches looks ahead  # [new, seen]."""
    hidden = torch.ones(new, seen, dtype=torch.bool, device=like.device).triu(seen - new + 1)
    return torch.zeros(new, seen, dtype=like.dtype, device=like.device).masked_fill(
        hidden, -torch.inf
    )


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
