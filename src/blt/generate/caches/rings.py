"""Keys and values of local models, which see a window of bytes.

They lie in rings of fixed size: position p at slot ``p % capacity``, and nothing is ever moved. A
ring has room for more than the window: what was written for bytes that are then taken back is older
than the window when it is met again, and the mask hides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.generate.caches.layout import CacheLayers, Layout
from blt.model.kernels.causal import attention, attention_after
from blt.model.layers import Transformer

MAX_ROWS = 32  # bytes of one sequence in one step; rings have room for as many besides the window


class Ring:
    """Keys and values of the last bytes of a batch of sequences, one sequence per row.

    Attributes:
        memory: [rows, layers, 2, H, capacity, D]: keys, values.
    """

    def __init__(self, transformers: Sequence[Transformer], rows: int, dtype: torch.dtype) -> None:
        like = transformers[0]
        assert like.window is not None, "only a sliding window fits into a ring"
        self.window, self.heads, self.capacity = like.window, like.heads, like.window + MAX_ROWS
        depth = sum(transformer.depth for transformer in transformers)
        shape = (rows, depth, 2, self.heads, self.capacity, like.head_dim)
        device = next(like.parameters()).device
        self.memory = torch.zeros(shape, dtype=dtype, device=device)
        # For C++
        self.addresses = torch.tensor(
            [memory.data_ptr() for memory in self.memory], dtype=torch.int64, device="cpu"
        )
        self.capacities = torch.full((rows,), self.capacity, dtype=torch.int64, device="cpu")

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
        return RingStep(self, first, positions, starts)

    def piece(self, positions: Tensor, row: int, starts: Tensor | None = None) -> RingPiece:
        """As :meth:`step`, for any number of bytes of one text [1, n], which all stay."""
        return RingPiece(self, row, positions, starts)

    def prefill(
        self, layers: range, attended: tuple[int, ...], offsets: tuple[int, ...], first: int
    ) -> list[RingPrefill]:
        """Caches for a packed forward of whole documents, kept in rows from ``first`` on.

        Args:
            layers: which of the ring's.
            attended: offsets of the spans within which positions see each other.
            offsets: of documents.
            first: row of the first document.
        """
        return [
            RingPrefill(self.memory[:, layer], self.window, attended, offsets, first)
            for layer in layers
        ]

    def keep(self, layers: range, new: Tensor, offsets: tuple[int, ...], first: int) -> None:
        """Take keys and values of whole documents into rows from ``first`` on.

        Args:
            layers: which of the ring's.
            new: [layers, 2, N, H, D]
            offsets: of documents.
            first: row of the first document.
        """
        for row, (start, end) in enumerate(pairwise(offsets), first):
            kept = min(end - start, self.capacity)
            positions = torch.arange(
                end - start - kept, end - start, dtype=torch.int64, device=new.device
            )
            last = new[:, :, end - kept : end].transpose(2, 3).to(self.memory.dtype)
            memory = self.memory[row, layers.start : layers.stop]
            memory.index_copy_(3, positions % self.capacity, last)

    def copy_row(self, source: int, target: int) -> None:
        self.memory[target] = self.memory[source]

    def save_row(self, row: int) -> Tensor:
        return self.memory[row].clone()

    def load_row(self, row: int, saved: Tensor) -> None:
        self.memory[row] = saved


@dataclass(frozen=True)
class RingStep:
    """One step of B sequences by n bytes each: the same for all layers of a ring."""

    ring: Ring
    first: int
    positions: Tensor  # [B, n]
    starts: Tensor | None  # [B, n]

    def caches(self, layers: range) -> CacheLayers:
        return CacheLayers(self, layers)

    def layer(self, layer: int) -> RingLayer:
        return RingLayer(self, layer)

    @cached_property
    def index(self) -> Tensor:
        """Rows of the first layer's keys in a flat memory [.., D]  # [B * H * n]."""
        ring, device = self.ring, self.positions.device
        rows = torch.arange(
            self.first, self.first + len(self.positions), dtype=torch.int64, device=device
        )
        heads = torch.arange(ring.heads, dtype=torch.int64, device=device)
        first_rows = rows * ring.memory[0, ..., 0].numel()
        block = first_rows[:, None] + heads * ring.capacity
        return (block[..., None] + (self.positions % ring.capacity)[:, None]).flatten()

    @cached_property
    def bias(self) -> Tensor:
        """-inf where a byte does not see a slot  # [B, 1, n, capacity]."""
        oldest = (self.positions - self.ring.window + 1).clamp_min_(0)
        if self.starts is not None:
            oldest = torch.maximum(oldest, self.starts)
        slots = torch.arange(self.ring.capacity, dtype=torch.int64, device=self.positions.device)
        last = self.positions[:, -1:]
        held = last - (last - slots) % self.ring.capacity  # [B, capacity] position in a slot
        held = held[:, None]
        visible = (held <= self.positions[..., None]) & (held >= oldest[..., None])
        bias = torch.zeros(visible.shape, dtype=self.ring.memory.dtype, device=slots.device)
        return bias.masked_fill_(~visible, -torch.inf)[:, None]

    @cached_property
    def layout(self) -> Layout:
        batch, n = self.positions.shape
        text = torch.arange(self.first, self.first + batch, dtype=torch.int64, device="cpu")
        return Layout(
            self.positions.contiguous(),
            None if self.starts is None else self.starts.contiguous(),
            text if n == 1 else text.repeat_interleave(n),
            self.ring.addresses,
            self.ring.capacities,
            self.ring.memory.dtype,
        )


@dataclass(frozen=True)
class RingLayer:
    step: RingStep
    layer: int

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [B * n, H, D]
        first, (batch, n) = self.step.first, self.step.positions.shape
        memory = self.step.ring.memory
        flat, size = memory.view(-1, memory.shape[-1]), memory[0, 0, 0, ..., 0].numel()
        for which, new in enumerate((k, v)):
            rows = new.to(memory.dtype).unflatten(0, (batch, n)).transpose(1, 2)
            index = self.step.index + (2 * self.layer + which) * size
            flat.index_copy_(0, index, rows.reshape(-1, memory.shape[-1]))
        keys, values = memory[first : first + batch, self.layer].unbind(1)
        attended = F.scaled_dot_product_attention(
            q.to(keys.dtype).unflatten(0, (batch, n)).transpose(1, 2),
            keys,
            values,
            attn_mask=self.step.bias,
            scale=1.0,  # the rotations of queries carry it
        )
        return attended.transpose(1, 2).flatten(0, 1).to(q.dtype)


@dataclass(frozen=True)
class RingPiece:
    """More bytes of one text than fit into a ring together: the same for all layers."""

    ring: Ring
    first: int  # row of the text
    positions: Tensor  # [1, n]
    starts: Tensor | None  # [1, n]

    def caches(self, layers: range) -> list[RingPieceLayer]:
        return [RingPieceLayer(self, layer) for layer in layers]

    @cached_property
    def runs(self) -> tuple[int, ...]:
        """Offsets of runs of bytes that see nothing before their run, but for the first."""
        n = self.positions.shape[1]
        if self.starts is None:
            return 0, n
        changes = self.starts[0].diff().nonzero().flatten() + 1
        return 0, *changes.tolist(), n

    @cached_property
    def past(self) -> Tensor:
        """Slots of what the first run sees before the piece, in order  # [m]."""
        at = int(self.positions[0, 0])
        oldest = max(0, at - self.ring.window + 1)
        if self.starts is not None:
            oldest = max(oldest, int(self.starts[0, 0]))
        positions = torch.arange(
            min(oldest, at), at, dtype=torch.int64, device=self.positions.device
        )
        return positions % self.ring.capacity

    @cached_property
    def slots(self) -> Tensor:
        """Where the last bytes go  # [at most capacity]."""
        return self.positions[0, -self.ring.capacity :] % self.ring.capacity


@dataclass(frozen=True)
class RingPieceLayer:
    piece: RingPiece
    layer: int

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [n, H, D]
        piece, window = self.piece, self.piece.ring.window
        memory, end = piece.ring.memory[piece.first, self.layer], piece.runs[1]
        keys, values = (
            torch.cat((old.index_select(1, piece.past).transpose(0, 1).to(new.dtype), new[:end]))
            for old, new in zip(memory, (k, v), strict=True)
        )
        for old, new in zip(memory, (k, v), strict=True):
            last = new[-len(piece.slots) :].transpose(0, 1).to(old.dtype)
            old.index_copy_(1, piece.slots, last)
        attended = attention_after(q[:end], keys, values, window)
        if end == len(q):
            return attended
        offsets = tuple(offset - end for offset in piece.runs[1:])
        q, k, v = (x[end:].contiguous() for x in (q, k, v))
        return torch.cat((attended, attention(q, k, v, offsets, window)))


@dataclass(frozen=True)
class RingPrefill:
    memory: Tensor  # [rows, 2, H, capacity, D]
    window: int
    attended: tuple[int, ...]
    offsets: tuple[int, ...]
    first: int

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [N, H, D]
        capacity = self.memory.shape[-2]
        for row, (start, end) in enumerate(pairwise(self.offsets), self.first):
            kept = min(end - start, capacity)
            slots = (
                torch.arange(end - start - kept, end - start, dtype=torch.int64, device=k.device)
                % capacity
            )
            for memory, new in zip(self.memory[row], (k, v), strict=True):
                last = new[end - kept : end].transpose(0, 1).to(memory.dtype)
                memory.index_copy_(1, slots, last)
        return attention(q, k, v, self.attended, self.window)
