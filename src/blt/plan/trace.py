"""What a training step allocates: the real step, run on fake tensors that take no memory.

Everything that the trainer does to weights runs here: forward, backward, clipping, AdamW, and with
several processes FSDP2 on a fake process group. So the count follows the code, not a formula. Only
hash tables of a single process, whose gradients are sparse and depend on the text, are estimated.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blt.lm import BLT, ByteLM, LanguageModel
from blt.machine.precision import autocast
from blt.model import kernels
from blt.model.config import ByteTransformerConfig, Config
from blt.model.kernels import blocks as block_attention
from blt.model.kernels import fused
from blt.model.packing import PackedBatch, Spans, pack
from blt.train.optim import MatrixOptimizer, optimizers
from blt.train.parallel import Parallel, local, recompute

A_BYTE = 100  # any id
GAPS = 0.3
LIBRARIES = 55e6  # bytes: kernels that are loaded or compiled when they are first used


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
        """Of a process on a CPU, where the C library's allocator leaves gaps in what comes and goes
        (gaps and the libraries' own memory: measured on three shapes, checked on three others)."""
        return self.peak + GAPS * (self.gradients + self.working) + LIBRARIES


class _Allocated(TorchDispatchMode):
    """Bytes of all storages that operations inside it have made and nobody has let go."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._sizes: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()

    def __enter__(self) -> _Allocated:
        # FSDP2 lets gathered weights go by making their storage empty.
        resize, allocated = torch.UntypedStorage.resize_, self

        def noted(storage: Any, size: int) -> Any:
            out = resize(storage, size)
            allocated._note(storage)
            return out

        self._undo = lambda: setattr(torch.UntypedStorage, "resize_", resize)
        torch.UntypedStorage.resize_ = noted  # type: ignore[method-assign, assignment]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._undo()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: Any) -> None:
        if storage not in self._sizes:
            held = self._sizes[storage] = [0]
            weakref.finalize(storage, lambda: self._add(-held[0]))
        held = self._sizes[storage]
        self._add(storage.nbytes() - held[0])
        held[0] = storage.nbytes()

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def trace_step(
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
    """
    documents = _documents(batch_bytes, context_bytes)
    batch = pack(documents, [_decisions(len(ids), patch_size) for ids in documents])
    model = meta_model(config)
    with _group(world) as parallel, _fake() as mode, _each_block_once(), _all_rows(gpu):
        model.to_empty(device="cpu")
        table = model.encoder.embedding.ngram if isinstance(model, BLT) else None
        sparse = table is not None and world == 1
        if sparse and table is not None:
            table.requires_grad_(False)
        if recomputes:
            recompute(model)
        parallel.shard(model)
        steps = optimizers(model, 1e-3, (0.9, 0.95), 0.1, optimizer)
        parameters = [p for p in model.parameters() if p.requires_grad]
        weights = _size(list(model.parameters()))
        with _Allocated() as allocated:
            _step(model, _fake_batch(mode, batch), parameters, dtype)
            gradients = _size([p.grad for p in parameters if p.grad is not None])
            for each in steps:
                each.step()
            state = [x for o in steps for entry in o.state.values() for x in entry.values()]
            state_size = _size([x for x in state if isinstance(x, Tensor)])
            before = allocated.peak
        if sparse and table is not None:
            gradients += (extra := _sparse_gradient(config, batch_bytes, table))
            state_size += 2 * 4 * len(table)  # RowwiseAdam
            before += extra
    # Optimisers' state is made in the first step, and there in all later ones.
    working = max(0, before - gradients)
    peak = weights + state_size + gradients + working
    return StepMemory(weights, gradients, state_size, working, peak)


def _step(
    model: LanguageModel, batch: PackedBatch, parameters: list[nn.Parameter], dtype: torch.dtype
) -> None:
    with autocast(torch.device("cpu"), dtype):
        logits = model(batch) if isinstance(model, BLT) else model(batch.ids, batch.documents)
    targets = torch.zeros(len(logits), dtype=torch.int64)
    loss = F.cross_entropy(logits.float(), targets, reduction="sum")
    del logits
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def meta_model(config: Config | ByteTransformerConfig) -> LanguageModel:
    """The model of a recipe, without memory."""
    with torch.device("meta"):
        model = BLT(config) if isinstance(config, Config) else ByteLM(config)
    if isinstance(model, BLT) and model.entropy_model is not None:
        model.entropy_model.requires_grad_(False)
    return model


def _sparse_gradient(config: Any, batch_bytes: int, table: Tensor) -> int:
    """Gradient of the rows that a batch can touch, and the sorted copies it is made of."""
    tables = config.hash_functions * len(config.hash_ngram_sizes)
    rows = min(batch_bytes * tables, len(table))
    return rows * table.shape[1] * 4 + 4 * 8 * batch_bytes * tables


def _documents(batch_bytes: int, context_bytes: int) -> list[Tensor]:
    lengths = [context_bytes] * (batch_bytes // context_bytes)
    if batch_bytes % context_bytes:
        lengths.append(batch_bytes % context_bytes)
    return [torch.full((length,), A_BYTE) for length in lengths]


def _decisions(length: int, patch_size: float) -> Tensor:
    """Starts that are ``patch_size`` apart on average  # [length + 1]."""
    places = (torch.arange(length + 1) / patch_size).floor()
    starts = torch.cat((torch.tensor([True]), places.diff() > 0))
    starts[:2] = True
    return starts


def _fake_batch(mode: FakeTensorMode, batch: PackedBatch) -> PackedBatch:
    def spans(real: Spans) -> Spans:
        return Spans(real.offsets, mode.from_tensor(real.positions))

    return PackedBatch(
        mode.from_tensor(batch.ids),
        spans(batch.documents),
        spans(batch.patches),
        mode.from_tensor(batch.patch_ids),
        mode.from_tensor(batch.decoder_patch_ids),
        mode.from_tensor(batch.patch_offsets),
    )


def _size(tensors: list[Any]) -> int:
    return sum(local(tensor).numel() * tensor.element_size() for tensor in tensors)


@contextmanager
def _fake() -> Iterator[FakeTensorMode]:
    """Fake tensors, none of which stays behind in a cache of masks."""
    caches = (block_attention._future, block_attention._outside_window)
    for cache in caches:
        cache.cache_clear()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        for cache in caches:
            cache.cache_clear()


@contextmanager
def _each_block_once() -> Iterator[None]:
    """Thousands of attention's blocks have a few shapes: one of each, and the outputs of all."""
    blocks, in_order = block_attention._blocks, block_attention._in_order

    def once(offsets: tuple[int, ...], window: int | None) -> Iterator[Any]:
        seen = set()
        for rows, lead, firsts in blocks(offsets, window):
            if (shape := (rows, lead, len(firsts))) not in seen:
                seen.add(shape)
                yield rows, lead, firsts

    def outputs(parts: dict[int, Tensor], empty: Tensor) -> Tensor:
        return torch.cat([torch.empty_like(empty)], 1)  # the parts and, copied, the whole

    block_attention._blocks, block_attention._in_order = once, outputs
    try:
        yield
    finally:
        block_attention._blocks, block_attention._in_order = blocks, in_order


@contextmanager
def _all_rows(gpu: bool) -> Iterator[None]:
    """Work as layers do it on a GPU; fake tensors are a CPU's."""
    layers: Any = fused
    picked: Any = kernels
    chunks = layers.chunks
    if gpu:
        layers.chunks = picked.chunks = lambda x, elements=0: iter((slice(None),))
    try:
        yield
    finally:
        layers.chunks = picked.chunks = chunks


@contextmanager
def _group(world: int) -> Iterator[Parallel]:
    """The first of ``world`` processes that are not there."""
    if world == 1:
        yield Parallel()
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    try:
        yield Parallel(0, world, init_device_mesh("cpu", (world,)))
    finally:
        dist.destroy_process_group()
