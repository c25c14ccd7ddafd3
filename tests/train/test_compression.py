"""A model that learns to cut is led to patches of the size that its recipe wants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt.checkpoint.convert import convert
from blt.data.loader import loader_of
from blt.errors import UserError
from blt.patching import PatchingConfig
from blt.train import Recipe, Report, TrainConfig, train_recipe
from blt.train.compression import Compression
from blt.train.sections import DataConfig, RoutingConfig
from blt.train.trainer import Trainer
from shapes import tiny_config
from texts import MULTILINGUAL

LEARNED = tiny_config(patching=PatchingConfig("learned"), entropy_model=None)


def recipe(tmp_path: Path, **train: Any) -> Recipe:
    text = tmp_path / "text.txt"
    text.write_bytes(MULTILINGUAL * 8)
    return Recipe(
        kind="blt",
        model=LEARNED,
        target_patch_size=3.0,
        data=DataConfig(sources=(str(text),), context_bytes=128, batch_bytes=512),
        train=TrainConfig(**{"steps": 6, "lr": 1e-2, "evals": 1, "eval_bytes": 512, **train}),
    )


def test_the_size_that_is_wanted_rises_and_then_stays() -> None:
    sizes = [Compression(4.5, RoutingConfig(warmup=0.5)).size(x / 10) for x in range(11)]
    assert sizes[0] == 1.5
    assert sizes == sorted(sizes)
    assert sizes[5:] == [4.5] * 6
    assert sizes[4] < 4.5
    assert Compression(1.2).size(0) == 1.2
    assert Compression(4.5, RoutingConfig(warmup=0.0)).size(0) == 4.5


@pytest.mark.parametrize(("target", "least", "most"), [(1.6, 1.2, 2.1), (4.0, 3.0, 5.4)])
def test_patches_come_to_the_size_that_is_wanted(target: float, least: float, most: float) -> None:
    torch.manual_seed(0)
    config = TrainConfig(steps=1, lr=1e-2, precision="float32")
    loader = loader_of([MULTILINGUAL] * 3, batch_bytes=512, context_bytes=256)
    pressed = Compression(target, RoutingConfig(ratio_loss=1.0, warmup=0.0))
    trainer = Trainer(blt.BLT(LEARNED), loader, config, compression=pressed)
    steps = [trainer.step(0.5) for _ in range(60)]
    sizes = [step.patch_size for step in steps[-10:] if step.patch_size is not None]
    assert least < sum(sizes) / len(sizes) < most
    assert steps[-1].nats < steps[0].nats


def test_work_is_counted_with_the_patches_that_were_cut() -> None:
    torch.manual_seed(0)
    config = TrainConfig(steps=1, precision="float32", accumulate=2)
    loader = loader_of([MULTILINGUAL], batch_bytes=512, context_bytes=256)
    trainer = Trainer(blt.BLT(LEARNED), loader, config)
    step = trainer.step(0.1)
    assert step.patch_size is not None
    assert step.patch_size > 1
    assert step.flops == pytest.approx(
        trainer.meter.flops_per_byte(step.patch_size) * step.num_bytes
    )


def test_bits_that_are_reported_are_those_of_the_text_alone() -> None:
    found = []
    for weight in (0.0, 100.0):
        torch.manual_seed(0)
        config = TrainConfig(steps=1, precision="float32")
        loader = loader_of([MULTILINGUAL], batch_bytes=512, context_bytes=256)
        pressed = Compression(4.0, RoutingConfig(ratio_loss=weight))
        step = Trainer(blt.BLT(LEARNED), loader, config, compression=pressed).step(0.1)
        found.append((step.nats, step.grad_norm))
    assert found[0][0] == found[1][0]
    assert found[1][1] > 2 * found[0][1]


def test_a_trained_router_is_saved_and_loaded_and_goes_into_no_other_layout(tmp_path: Path) -> None:
    reports: list[Report] = []
    made = recipe(tmp_path)
    model = train_recipe(made, tmp_path / "run", on_progress=reports.append)
    assert isinstance(model, blt.BLT)
    assert reports[-1].patch_size is not None
    assert reports[-1].heldout_bits_per_byte is not None
    loaded = blt.load(tmp_path / "run" / "checkpoint")
    assert isinstance(loaded, blt.BLT)
    assert loaded.config.patching.rule == "learned"
    ids = blt.encode(MULTILINGUAL[:300])
    assert torch.equal(loaded.logits(ids), model.logits(ids))
    assert torch.equal(loaded.patch(ids).starts, model.patch(ids).starts)
    for layout in ("transformers", "meta"):
        with pytest.raises(UserError, match="learned"):
            convert(tmp_path / "run" / "checkpoint", tmp_path / layout, to=layout)


def test_what_shapes_a_router_is_only_for_one(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    assert made.routing == RoutingConfig()
    with pytest.raises(ValueError, match="routing"):
        replace(made, model=tiny_config(patching=PatchingConfig("space"), entropy_model=None))
    with pytest.raises(ValueError, match="target_patch_size"):
        replace(made, target_patch_size=1.0)
    with pytest.raises(ValueError, match=r"routing\.warmup"):
        RoutingConfig(warmup=1.5)
