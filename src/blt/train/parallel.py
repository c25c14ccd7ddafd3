"""Several processes that train one model: torchrun starts them, FSDP2 divides the weights.

Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from blt.machine.precision import bfloat16_is_faster, choose_device, settle_bfloat16
from blt.model.blt import GlobalTransformer
from blt.model.embedding import NgramTables
from blt.model.layers import TransformerLayer
from blt.model.transformer import CausalTransformer


@dataclass(frozen=True)
class Parallel:
    """The processes that share a training."""

    rank: int = 0
    world: int = 1
    mesh: DeviceMesh | None = None  # None: a single process
    writers: dist.ProcessGroup | None = None  # for threads that write checkpoints meanwhile

    @property
    def main(self) -> bool:
        """Is this the process that writes?"""
        return self.rank == 0

    def shard(self, model: nn.Module) -> None:
        """Divide the weights of ``model``, layer by layer; frozen ones stay whole everywhere."""
        if self.mesh is None:
            return
        frozen = {parameter for parameter in model.parameters() if not parameter.requires_grad}
        for module in model.modules():
            apart = isinstance(module, TransformerLayer | NgramTables)
            if apart and not frozen & set(module.parameters()):
                fully_shard(module, mesh=self.mesh)
        fully_shard(model, mesh=self.mesh, ignored_params=frozen)
        if isinstance(model, CausalTransformer):  # called without its forward
            register_fsdp_forward_method(model, "entropies")
        if getattr(model, "router", None) is not None:
            register_fsdp_forward_method(model, "boundary_probabilities")

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums of all processes' values, one by one."""
        if self.mesh is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(tensor)
        return tensor.tolist()  # type: ignore[no-any-return]

    def add_up(self, value: Tensor) -> None:
        """Make a value on the device the sum of all processes' values, without waiting for it."""
        if self.mesh is not None:
            dist.all_reduce(value)

    def agree(self, values: Sequence[float]) -> list[float]:
        """The main process's values: clocks and signals differ, decisions must not."""
        if self.mesh is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.broadcast(tensor, 0)
        return tensor.tolist()  # type: ignore[no-any-return]

    def barrier(self, group: dist.ProcessGroup | None = None) -> None:
        """Wait for all."""
        if self.mesh is not None and group is not None:
            dist.barrier(group)
        elif self.mesh is not None:
            self.sums([0.0])  # NCCL's barrier guesses a device

    @property
    def _device(self) -> str:
        assert self.mesh is not None
        return self.mesh.device_type


def start(device: str) -> Parallel:
    """The processes that torchrun started, connected; or the one that there is.

    Args:
        device: of the recipe, as of :func:`blt.machine.precision.choose_device`.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Parallel()
    kind = choose_device(device).type
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    writers = dist.new_group(backend="gloo")
    parallel = Parallel(dist.get_rank(), world, init_device_mesh(kind, (world,)), writers)
    # Each process measures for itself, and two that differ would exchange numbers of two kinds.
    here = torch.device(kind)
    (faster,) = parallel.sums([bfloat16_is_faster(here)])
    settle_bfloat16(here, faster == world)
    return parallel


def last_backward(model: nn.Module, last: bool) -> None:
    """Let only the last of several backward passes exchange gradients."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a divided tensor, sharing its memory; others as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A divided tensor put together; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def recompute(model: nn.Module) -> None:
    """Let the layers of the global transformer keep nothing for backward but their input."""
    for module in model.modules():
        if isinstance(module, GlobalTransformer):
            for layer in module.transformer.layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
