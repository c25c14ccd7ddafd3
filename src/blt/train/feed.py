"""Batches as the model reads them, on its device by the time that a step wants them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from blt.data.loader import Loader
from blt.data.prefetch import Prefetch
from blt.lm import LanguageModel
from blt.machine.precision import autocast
from blt.model.language import Batch, Ready
from blt.train.stale import withheld


class Feed(Iterator[Ready]):
    """Laid out, cut into patches and brought to the device.

    For a GPU the thread that reads ahead does it, on a stream of its own: neither the host nor the
    step before waits. On a CPU, whose cores the step has, it is done when the batch is wanted.

    Args:
        model: what reads the batches.
        loader: of the batches.
        dtype: of matrix products, those of an entropy model among them.
        stale_patches: share of patches that come late to the bytes that would see them.
    """

    def __init__(
        self,
        model: LanguageModel,
        loader: Loader,
        dtype: torch.dtype,
        stale_patches: float = 0.0,
    ) -> None:
        self.model, self.dtype, self.stale_patches = model, dtype, stale_patches
        self.on_gpu = model.device.type == "cuda"
        self.ahead: Prefetch[Any] = Prefetch(loader, self._copied if self.on_gpu else _itself)
        self._stream: torch.cuda.Stream | None = None

    def __next__(self) -> Ready:
        made = next(self.ahead)
        if not self.on_gpu:
            return self._laid_out(made)
        ready, copied = made
        step = torch.cuda.current_stream(self.model.device)
        step.wait_event(copied)
        for tensor in _tensors((ready.inputs, ready.targets)):
            tensor.record_stream(step)  # its memory is not given away before the step is done
        return ready  # type: ignore[no-any-return]

    def _laid_out(self, batch: Batch) -> Ready:
        with torch.no_grad(), autocast(self.model.device, self.dtype):
            ready = self.model.ready(batch)
            return withheld(ready, self.stale_patches) if self.stale_patches else ready

    def _copied(self, batch: Batch) -> tuple[Ready, torch.cuda.Event]:
        """In the thread that reads ahead."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.model.device)
        with torch.cuda.device(self.model.device), torch.cuda.stream(self._stream):
            ready = self._laid_out(batch)
            return ready, self._stream.record_event()


def _itself(batch: Batch) -> Batch:
    return batch


def _tensors(part: Any) -> Iterator[Tensor]:
    """All tensors in tuples and dataclasses."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, tuple):
        for inner in part:
            yield from _tensors(inner)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _tensors(getattr(part, field.name))
