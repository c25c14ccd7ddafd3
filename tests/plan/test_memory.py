"""The closed form of a step's memory, against steps that run while their tensors are counted."""

from __future__ import annotations

import random
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo as dynamo
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import blt
from blt.data import loader_of
from blt.model.compiling import compile_model
from blt.model.config import Block
from blt.model.layers import TransformerLayer, rope_frequencies, rope_rotations
from blt.model.packing import Spans
from blt.plan.activations import Activations
from blt.plan.memory import step_memory
from blt.train import TrainConfig, read_recipe
from blt.train.parallel import Parallel, local, recompute
from blt.train.trainer import Trainer
from shapes import tiny_config

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
SMALL = {"batch_bytes": 256, "context_bytes": 128, "patch_size": 4.0, "dtype": torch.float32}
STATIC = blt.PatchingConfig(rule="static", stride=4)  # known patches, no entropy model
TINY = tiny_config(patching=STATIC, entropy_model=None)
WIDE = replace(TINY, local_dim=64, encoder_ff_dim=176, decoder_ff_dim=176, decoder_layers=3)
DEEP = replace(TINY, global_dim=128, global_ff_dim=352, global_layers=8, cross_attention_k=4)
OTHERS = replace(DEEP, global_heads=4, global_block=Block(2, 40, True, "all", "after"))
UNCROSSED = replace(WIDE, encoder_cross_attention="none", decoder_cross_attention="none")
UNHASHED = replace(TINY, hash_ngram_sizes=(), encoder_layers=2, encoder_cross_attention="all")
BYTES = blt.ByteTransformerConfig(dim=128, layers=3, ff_dim=352, sliding_window=128)
NGRAMS = replace(BYTES, hash_ngram_sizes=(3, 5), hash_rows=2000)
GATED = replace(NGRAMS, hash_gate=True)
WIDER = replace(GATED, hash_dim=320)
MANY = replace(NGRAMS, dim=64, ff_dim=176, hash_ngram_sizes=(3, 4, 5, 6, 7, 8), hash_rows=20000)


class Counted(TorchDispatchMode):
    """The most bytes of storages at once: of those held from the start, and of those made since."""

    def __init__(self, held: list[Tensor]) -> None:
        super().__init__()
        self.storages: weakref.WeakSet[Any] = weakref.WeakSet(x.untyped_storage() for x in held)
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if DTensor in types:
            return NotImplemented  # to see the operations that it is made of
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and not x.is_sparse and not isinstance(x, FakeTensor):
                self.storages.add(x.untyped_storage())
        self.peak = max(self.peak, sum(storage.nbytes() for storage in self.storages))
        return out


def trainer_of(
    config: Any,
    batch: int,
    context: int,
    parallel: Parallel | None = None,
    text: bytes = bytes(range(256)) * 400,
    **options: Any,
) -> Trainer:
    model = blt.BLT(config) if isinstance(config, blt.Config) else blt.ByteLM(config)
    if options.get("recompute"):
        recompute(model)
    if parallel is not None:
        parallel.shard(model)
    loader = loader_of([text], batch_bytes=batch, context_bytes=context)
    return Trainer(model, loader, TrainConfig(steps=4, **options), parallel)


def second_step(trainer: Trainer) -> int:
    """Peak bytes of a step before which the optimisers' state is there."""
    trainer.step(0.5)
    states = [state for optimizer in trainer.optimizers for state in optimizer.state.values()]
    tensors = [x for state in states for x in state.values() if isinstance(x, Tensor)]
    with Counted([local(x.detach()) for x in (*trainer.model.parameters(), *tensors)]) as counted:
        trainer.step(0.5)
    trainer.loader.close()
    return counted.peak


@contextmanager
def four_processes() -> Iterator[Parallel]:
    """The first of four, without the others: what it exchanges with them stays as it is."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    try:
        yield Parallel(0, 4, init_device_mesh("cpu", (4,)))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("batch", "precision"),
    [
        ((512, 512), "float32"),
        ((4096, 1024), "bfloat16"),
        pytest.param((4096, 1024), "float32", marks=pytest.mark.slow),
        pytest.param((512, 512), "bfloat16", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "config", [WIDE, DEEP, OTHERS, UNCROSSED, UNHASHED, BYTES, NGRAMS, GATED, WIDER]
)
def test_the_peak_is_that_of_a_real_step(
    config: Any, batch: tuple[int, int], precision: str
) -> None:
    known = {"batch_bytes": batch[0], "context_bytes": batch[1], "patch_size": 4.0}
    memory = step_memory(config, **known, dtype=getattr(torch, precision))
    real = second_step(trainer_of(config, *batch, precision=precision))
    assert memory.peak == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize(
    ("config", "precision"),
    [(TINY, "float32"), (WIDE, "bfloat16"), (DEEP, "float32"), (UNCROSSED, "bfloat16")],
)
def test_the_peak_of_a_model_that_learns_where_to_cut_is_that_of_a_real_step(
    config: blt.Config, precision: str
) -> None:
    config = replace(config, patching=blt.PatchingConfig(rule="learned", max_patch_length=4))
    torch.manual_seed(0)
    trainer = trainer_of(config, 512, 512, precision=precision)
    real, size = second_step(trainer), trainer.step(0.5).patch_size  # of one much like it
    known = {"batch_bytes": 512, "context_bytes": 512, "patch_size": size}
    memory = step_memory(config, **known, dtype=getattr(torch, precision))
    assert memory.peak == pytest.approx(real, rel=0.05)
    states = [s for optimizer in trainer.optimizers for s in optimizer.state.values()]
    moments = [x for state in states for x in state.values() if x.dim()]  # no counts of steps
    assert memory.optimizer == 4 * sum(x.numel() for x in moments)


@pytest.mark.parametrize("options", [{"recompute": True}, {"optimizer": "muon"}])
def test_recomputing_and_muon_need_what_they_take(options: dict[str, Any]) -> None:
    memory = step_memory(
        DEEP,
        **{**SMALL, "batch_bytes": 2048},
        recomputes="recompute" in options,
        optimizer=options.get("optimizer", "adamw"),
    )
    real = second_step(trainer_of(DEEP, 2048, 128, precision="float32", **options))
    assert memory.peak == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize(
    ("config", "accumulate"), [(DEEP, 2), (BYTES, 8), (NGRAMS, 8), (MANY, 2), (MANY, 8)]
)
def test_gradients_of_several_batches_stay_until_the_step(config: Any, accumulate: int) -> None:
    memory = step_memory(config, **SMALL, accumulate=accumulate)
    text = random.Random(0).randbytes(100_000)  # each batch has n-grams of its own
    options = {"precision": "float32", "accumulate": accumulate}
    real = second_step(trainer_of(config, 256, 128, text=text, **options))
    # What is counted loses sight of rows that are put aside, which sparse gradients alone hold.
    aside = (accumulate - 1) * 4 * 256 * len(config.hash_ngram_sizes) * width_of(config)
    assert real * 0.95 <= memory.peak <= real * 1.05 + aside


def width_of(config: Any) -> int:
    width = config.dim if isinstance(config, blt.ByteTransformerConfig) else config.local_dim
    return int(config.hash_dim or width)


@pytest.mark.parametrize("rows", [200, 20000], ids=["small table", "large table"])
def test_several_processes_keep_gradients_of_several_batches_undivided(rows: int) -> None:
    config = replace(DEEP, hash_rows=rows)
    options = {"precision": "float32", "accumulate": 2}
    with four_processes() as parallel:
        real = second_step(trainer_of(config, 512, 256, parallel, **options))
    known = {**SMALL, "batch_bytes": 512, "context_bytes": 256}
    memory = step_memory(config, **known, world=4, accumulate=2)
    assert memory.peak == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize("rows", [200, 20000], ids=["small table", "large table"])
def test_the_peak_of_one_of_four_processes_is_that_of_a_real_step(rows: int) -> None:
    config = replace(DEEP, hash_rows=rows)
    with four_processes() as parallel:
        real = second_step(trainer_of(config, 512, 256, parallel, precision="float32"))
    memory = step_memory(config, **{**SMALL, "batch_bytes": 512, "context_bytes": 256}, world=4)
    assert memory.peak == pytest.approx(real, rel=0.05)


def test_memory_of_weights_gradients_and_optimiser_is_what_the_trainer_keeps() -> None:
    config = tiny_config()
    model = blt.BLT(config)
    trained = sum(p.numel() for p in model.parameters()) - sum(
        p.numel()
        for p in model.entropy_model.parameters()  # type: ignore[union-attr]
    )
    table = model.encoder.embedding.ngram
    memory = step_memory(config, **SMALL)
    assert memory.weights == 4 * sum(p.numel() for p in model.parameters())
    moments = 2 * 4 * (trained - table.numel()) + 2 * 4 * len(table)
    count = len([p for p in model.parameters() if p.requires_grad])
    assert memory.optimizer == pytest.approx(moments, abs=4 * count)  # and a step count for each
    muon = step_memory(config, **SMALL, optimizer="muon")
    inner = [p for n, p in model.named_parameters() if p.requires_grad and p.dim() == 2]
    saved = 4 * sum(p.numel() for p in inner) - 4 * model.decoder.head.weight.numel()
    saved -= 4 * (table.numel() + model.encoder.embedding.byte.numel())  # one moment, not two
    assert memory.optimizer - muon.optimizer == pytest.approx(saved, abs=4 * count)
    assert memory.peak == (memory.weights + memory.gradients + memory.optimizer + memory.working)


def test_longer_contexts_and_batches_need_more_and_recomputing_less() -> None:
    config = tiny_config(global_layers=6)
    one = step_memory(config, **SMALL)
    twice = step_memory(config, **{**SMALL, "batch_bytes": 512})
    assert twice.working == pytest.approx(2 * one.working, rel=0.3)
    assert twice.weights == one.weights
    assert step_memory(config, **SMALL, recomputes=True).working < one.working


def test_four_processes_hold_a_quarter_each() -> None:
    config = tiny_config()
    one, four = step_memory(config, **SMALL), step_memory(config, **SMALL, world=4)
    frozen = 4 * sum(p.numel() for p in blt.ByteLM(config.entropy_model).parameters())  # type: ignore[arg-type]
    # Rows are dealt out whole, so parts are a little more than a quarter.
    assert four.weights - frozen == pytest.approx((one.weights - frozen) / 4, rel=0.1)


def test_the_8b_step_on_256_processes_gathers_its_hash_table_and_its_gradient() -> None:
    model = read_recipe(PAPER / "blt-8b.toml").model
    assert model is not None
    memory = step_memory(
        model,
        batch_bytes=1024,
        context_bytes=1024,
        patch_size=4.5,
        dtype=torch.bfloat16,
        world=256,
        recomputes=True,
        gpu=True,
    )
    dense = 10.45e9 - 3.84e9  # without hash tables, which keep two floats per row
    assert memory.weights == pytest.approx(4 * 10.45e9 / 256 + 4 * 0.1e9, rel=0.02)
    assert memory.optimizer == pytest.approx(8 * dense / 256, rel=0.02)
    assert memory.peak == pytest.approx(2 * 4 * 3.84e9, rel=0.1)


def test_what_a_compiled_layer_keeps_is_what_the_compiler_chose() -> None:
    """Without an optimiser: tensors that its backward pass holds on to, of one layer of a stack."""
    for less in (False, True):
        dynamo.reset()
        layer = TransformerLayer(256, 4, 704, 1e-5, 128)
        assert compile_model(layer, recompute=less)
        layer.compile(
            dynamic=True, backend="aot_eager_decomp_partition"
        )  # chooses, generates nothing
        kept = kept_by(layer, rows=4096)
        width, dim, wide = 2, 256, 704
        predicted = Activations(4096, 1, width, gpu=True, recomputes=less, compiled=True)
        assert predicted._kept_compiled(dim, dim, wide) == pytest.approx(kept / 4096, rel=0.15)
    dynamo.reset()


def kept_by(layer: TransformerLayer, rows: int) -> int:
    """Bytes that lie between forward and backward, without weights and rotations."""
    spans = Spans.from_lengths([rows])
    rope = rope_rotations(spans.positions, rope_frequencies(64, 5e5, None, torch.device("cpu")))
    x = torch.randn(rows, 256, requires_grad=True)
    delta = torch.randn(rows, 256, dtype=torch.bfloat16, requires_grad=True)
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if rows in tensor.shape and storage.data_ptr() != rope.untyped_storage().data_ptr():
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        out = layer(x, delta, rope, spans)
    del out
    return sum(sizes.values())
