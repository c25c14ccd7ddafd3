"""The caches of a step's layers, and where their rows lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from blt.model.layers import KeyValueCache


@dataclass(frozen=True)
class Layout:
    """The rows of a step as C++ wants them; int64 on the CPU."""

    at: Tensor  # [N] position that each row is written to, modulo capacity
    starts: Tensor | None  # [N] it sees nothing before
    text: Tensor  # [N] whose cache
    addresses: Tensor  # [texts] of caches, each [layers, 2, H, capacity, D]
    capacity: Tensor  # [texts]
    dtype: torch.dtype


class Step(Protocol):
    """New bytes or patches of some texts: the same for all layers."""

    @property
    def layout(self) -> Layout: ...

    def layer(self, layer: int) -> KeyValueCache: ...


class CacheLayers(Sequence[KeyValueCache]):
    """Some layers' caches in a step."""

    def __init__(self, step: Step, layers: range) -> None:
        self._step, self._layers = step, layers
        self.first = layers.start

    @property
    def layout(self) -> Layout:
        return self._step.layout

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> KeyValueCache:  # type: ignore[override]
        return self._step.layer(self._layers[index])
