"""Steps as CUDA graphs: launched at once instead of kernel by kernel. Elsewhere, just called."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor


class Launcher:
    """Runs steps, and keeps a graph of each, by its name and arguments.

    Args:
        device: where the steps work.

    Attributes:
        captures: how many graphs it has made; each takes as long as many steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.captures = device, 0
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None
        # One stream for all captures: cuBLAS keeps a workspace for each.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, step: Callable[..., None], *arguments: Hashable) -> None:
        """Run a step, which must do nothing but change tensors that stay where they are."""
        if self.device.type != "cuda":
            step(*arguments)
            return
        key = (step.__name__, *arguments)
        with torch.cuda.device(self.device):
            if key in self.graphs:
                self.graphs[key].replay()
            else:
                self.graphs[key] = self._captured(step, arguments)

    def forget(self, *names: str) -> None:
        """Tensors that these steps work on have been replaced."""
        self.graphs = {key: g for key, g in self.graphs.items() if key[0] not in names}  # type: ignore[index]

    def _captured(
        self, step: Callable[..., None], arguments: tuple[Hashable, ...]
    ) -> torch.cuda.CUDAGraph:
        """Run a step once, on a stream of its own, and capture it for all times to come."""
        stream = self._stream
        assert stream is not None
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            step(*arguments)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # One pool for all: they run one after the other, and hand on nothing that lies in it.
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
        ):
            step(*arguments)
        self._pool = graph.pool()
        self.captures += 1
        return graph


class Mirror:
    """Brings tensors to the host: the one place where the host waits for the device.

    Attributes:
        reads: how many times it has waited.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.reads = device, 0
        self._pinned: dict[int, Tensor] = {}
        self._coming: list[Tensor] = []
        self._event = torch.cuda.Event() if device.type == "cuda" else None

    def start(self, *tensors: Tensor) -> None:
        """Begin to copy contiguous tensors; what is launched after this does not wait for it."""
        if self._event is None:
            self._coming = [x.clone() for x in tensors]
            return
        self._coming = [self._room(i, x).copy_(x, non_blocking=True) for i, x in enumerate(tensors)]
        self._event.record(torch.cuda.current_stream(self.device))

    def wait(self) -> list[Tensor]:
        """The copies; overwritten by the next."""
        self.reads += 1
        if self._event is not None:
            self._event.synchronize()
        return self._coming

    def _room(self, index: int, like: Tensor) -> Tensor:
        """Pinned memory for a tensor."""
        held = self._pinned.get(index)
        if held is None or held.numel() < like.numel():
            held = torch.empty(like.numel(), dtype=like.dtype, device="cpu", pin_memory=True)
            self._pinned[index] = held
        return held[: like.numel()].view(like.shape)
