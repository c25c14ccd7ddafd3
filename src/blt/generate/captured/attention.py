"""What new positions see of caches that lie in fixed slots, one slot per text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.model.kernels import operators

Kernel = Callable[..., Tensor]


@dataclass(frozen=True)
class Seen:
    """Which positions each of n queries of R texts sees; the same for all layers of a step.

    Attributes:
        first: [R, n] int64 first position that it sees.
        last: [R, n] one after the last position.
        rows: [R] int64 in which row of the caches a text lies; None: text r in row r.
        ring: position p lies in slot p % ROOM, and not in slot p.
        kernel: reads only what is seen, where there is one.
        bias: [R, 1, n, ROOM] -inf where a slot is not seen, where there is no kernel.
    """

    first: Tensor
    last: Tensor
    rows: Tensor | None
    ring: bool
    kernel: Kernel | None
    bias: Tensor | None

    @classmethod
    def of(
        cls,
        first: Tensor,
        last: Tensor,
        memory: Tensor,
        kernel: Kernel | None,
        *,
        rows: Tensor | None = None,
        ring: bool,
    ) -> Seen:
        """What queries see of caches [.., ROOM, D]."""
        if kernel is not None:
            return cls(first.int(), last.int(), rows, ring, kernel, None)
        room = memory.shape[-2]
        slots = torch.arange(room, dtype=torch.int64, device=first.device)
        held = slots
        if ring:  # the latest position before `last` that lies in a slot
            held = last[..., None] - 1 - (last[..., None] - 1 - slots) % room
        visible = (held >= first[..., None]) & (held < last[..., None])
        bias = torch.where(visible[:, None], 0.0, -torch.inf).to(memory.dtype)
        return cls(first, last, rows, ring, None, bias)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Softmax attention of q [R, n, H, D] over caches [rows, H, ROOM, D]  # [R, n, H, D]; the
        caches may have fewer heads, each for several of the queries'."""
        if self.rows is None:
            keys, values = keys[: len(q)], values[: len(q)]
        if self.kernel is not None:
            return self._by_kernel(self.kernel, q, keys, values, scale)
        if self.rows is not None:
            keys, values = keys[self.rows], values[self.rows]
        attended = F.scaled_dot_product_attention(
            q.to(keys.dtype).transpose(1, 2),
            keys,
            values,
            attn_mask=self.bias,
            scale=scale,
            enable_gqa=keys.shape[1] < q.shape[2],
        )
        return attended.transpose(1, 2).to(q.dtype)

    def _by_kernel(
        self, kernel: Kernel, q: Tensor, keys: Tensor, values: Tensor, scale: float
    ) -> Tensor:
        n, rows = q.shape[1], self.rows
        if n > 1:
            rows = (
                torch.arange(len(q), dtype=torch.int64, device=q.device) if rows is None else rows
            )
            rows = rows.repeat_interleave(n)
        flat = q.flatten(0, 1)
        first, last = self.first.flatten(), self.last.flatten()
        return kernel(flat, keys, values, first, last, scale, ring=self.ring, rows=rows).view_as(q)


def kernel_for(device: torch.device) -> Kernel | None:
    """The kernel that reads only what is seen, where Triton works: ``decode_attention``."""
    if not operators.usable(device):
        return None
    return operators.kernels("decode_attention").decode_attention  # type: ignore[no-any-return]


@dataclass(frozen=True)
class LayerCache:
    """One layer's keys and values in a step: where new ones go, and what queries see.

    Attributes:
        memory: [rows, 2, H, ROOM, D] keys and values.
        row: [R, n] int64 row that a new position is written to.
        slot: [R, n] int64 slot that it is written to.
    """

    memory: Tensor
    row: Tensor
    slot: Tensor
    seen: Seen

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k and v; q attends to what it sees, these among it  # [R * n, H, D] all; of k and v
        there may be fewer heads."""
        keys, values = self.memory.unbind(1)
        shape = self.row.shape
        keys[self.row, :, self.slot] = k.to(keys.dtype).unflatten(0, shape)
        values[self.row, :, self.slot] = v.to(values.dtype).unflatten(0, shape)
        # The rotations of queries carry the scale.
        return self.seen.attend(q.unflatten(0, shape), keys, values, 1.0).flatten(0, 1)
