"""What a training step allocates, from the shapes of the model: nothing runs.

The backward pass goes through the parts of the model from the last to the first, lets their
activations go and adds their gradients. The peak is the most that exists at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blt.lm import BLT, ByteLM, LanguageModel
from blt.model.config import ByteTransformerConfig, Config
from blt.model.embedding import NgramTables
from blt.model.layers import Linear
from blt.plan.activations import FLOAT, Activations, Part
from blt.train.optim import MatrixOptimizer

GAPS = 0.37
MERGED = 3  # times the rows of all batches: as they were, in the order of the table, and added up
LIBRARIES = 105e6  # bytes: kernels that are loaded or compiled when they are first used


@dataclass(frozen=True)
class StepMemory:
    """Bytes in one process."""

    weights: int  # of the whole model, or this process's part, frozen ones included
    gradients: int
    optimizer: int
    working: int  # activations, temporaries and gathered weights, at the peak
    peak: int

    @property
    def resident(self) -> float:
        """Memory of a process on a CPU, where the C library's allocator leaves gaps in what comes
        and goes (fitted to three measured shapes, checked on three others)."""
        return self.peak + GAPS * (self.gradients + self.working) + LIBRARIES


def step_memory(
    config: Config | ByteTransformerConfig,
    *,
    batch_bytes: int,
    context_bytes: int,
    patch_size: float,
    dtype: torch.dtype,
    world: int = 1,
    recomputes: bool = False,
    optimizer: MatrixOptimizer = "adamw",
    gpu: bool = False,
    compiled: bool = False,
    accumulate: int = 1,
) -> StepMemory:
    """Memory of one training step of one of ``world`` processes.

    Args:
        batch_bytes: ids that a process lays into one batch.
        context_bytes: of each document in it.
        patch_size: mean bytes per patch.
        dtype: of matrix products.
        recomputes: as ``train.recompute``.
        optimizer: as ``train.optimizer``.
        gpu: where layers work on all rows at once, which a CPU's cache would not hold.
        compiled: by torch.compile, which chooses itself what a layer keeps.
        accumulate: as ``train.accumulate``: gradients of earlier batches of a step stay, whole.
    """
    model = meta_model(config)
    documents = math.ceil(batch_bytes / context_bytes)
    patches = min(batch_bytes, round(batch_bytes / patch_size) + documents)
    activations = Activations(batch_bytes, patches, dtype.itemsize, gpu, recomputes, compiled)
    parts = list(activations.parts(model))
    weights = [_size([x], world if x.requires_grad else 1) for x in model.parameters()]
    trained = [parameter for part in parts for parameter in part.parameters()]
    steps = _steps(parts, world)
    gradients = sum(step[0] for step in steps) if world == 1 else _size(trained, world)
    several = accumulate > 1
    peak = _peak_of_several(parts, steps, accumulate, world) if several else _peak(parts, steps)
    working = max(0, round(peak) - gradients)
    sizes = (sum(weights), gradients, _state(model, trained, optimizer, world), working)
    return StepMemory(*sizes, peak=sum(sizes))


def meta_model(config: Config | ByteTransformerConfig) -> LanguageModel:
    """The model of a recipe, without memory."""
    with torch.device("meta"):
        model = BLT(config) if isinstance(config, Config) else ByteLM(config)
    if isinstance(model, BLT) and model.entropy_model is not None:
        model.entropy_model.requires_grad_(False)
    return model


def _peak(parts: Sequence[Part], steps: Sequence[tuple[int, int]]) -> float:
    """The most bytes at once besides weights and the optimiser's state.

    Args:
        steps: of each part's backward pass, the bytes of gradients that it leaves, and those of
            weights and gradients that are gathered meanwhile.
    """
    kept, gradients = sum(part.kept for part in parts), 0
    peak = kept + sum(part.forward for part in parts)
    for part, (gradient, gathered) in reversed(list(zip(parts, steps, strict=True))):
        gradients += gradient
        peak = max(peak, kept + gradients + part.backward + gathered)
        kept -= part.kept
    return peak


def _peak_of_several(
    parts: Sequence[Part], steps: Sequence[tuple[int, int]], accumulate: int, world: int
) -> float:
    """The same of a step that adds up the gradients of several batches, which stay until its end.

    Of hash tables a single process puts the rows of each batch aside and merges them behind the
    last one; several processes keep all gradients undivided until then.
    """
    tables = [part.touched is not None and world == 1 for part in parts]
    pairs = list(zip(parts, tables, strict=True))
    dense = sum(_size(part.parameters()) for part, table in pairs if not table)
    rows = sum(
        _size(x[: part.touched] for x in part.parameters()) for part, table in pairs if table
    )
    held, kept = dense + (accumulate - 1) * rows, sum(part.kept for part in parts)
    peak = max(
        kept + held + sum(part.forward for part in parts), dense + MERGED * accumulate * rows
    )
    for (part, table), (gradient, gathered) in reversed(list(zip(pairs, steps, strict=True))):
        # What several processes gather of a group has room for its new gradient.
        own = 0 if part.grouped and world > 1 else _size(part.parameters())
        new = gradient if table else own
        peak = max(peak, kept + held + new + part.backward + gathered)
        kept -= part.kept
    return peak


def _steps(parts: Sequence[Part], world: int) -> list[tuple[int, int]]:
    """For :func:`_peak`. A single process has sparse gradients of hash tables.

    FSDP2 gathers each group of weights while it is needed, and the next one in advance; all other
    weights, and their gradients, stay whole.
    """
    if world == 1:
        return [(_size(x[: part.touched] for x in part.parameters()), 0) for part in parts]
    others = sum(_size(part.parameters()) for part in parts if not part.grouped)
    steps, following = [], 0  # the backward pass comes from behind
    for part in parts:
        group = _size(part.parameters()) if part.grouped else 0
        gradient = _size(part.parameters(), world if part.grouped else 1)
        steps.append((gradient, others + 2 * group + following))
        following = group or following
    return steps


def _state(
    model: nn.Module, trained: Sequence[Tensor], optimizer: MatrixOptimizer, world: int
) -> int:
    """Two moments of each number, of RowwiseAdam each row; of Muon's matrices in layers, one."""
    tables = {m.ngram for m in model.modules() if isinstance(m, NgramTables)}
    linear = [pair for pair in model.named_modules() if isinstance(pair[1], Linear)]
    inner = {m.weight for name, m in linear if optimizer == "muon" and not name.endswith("head")}
    both = _size((x[:, 0] if x in tables else x for x in trained), world)
    return 2 * both - _size(inner & set(trained), world)


def _size(tensors: Iterable[Tensor], world: int = 1) -> int:
    """Bytes of one process's part, whose rows are dealt out whole."""
    return sum(FLOAT * math.ceil(len(x) / world) * math.prod(x.shape[1:]) for x in tensors)
