"""A training does what its hooks ask for, in their order, and what it reports stays its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blt.data.text import Source
from blt.lm import LanguageModel
from blt.model.language import Batch
from blt.train import Hooks, Recipe, train_recipe
from blt.train.hooks import Extra

HEAD = "head."


class Noted(Hooks):
    """Another seed, a head that is set and has no learning rate, FLOPs by the byte."""

    def __init__(self, scale: float = 0.0) -> None:
        self.scale = scale
        self.called: list[Any] = []

    def resolve(self, recipe: Recipe) -> Recipe:
        self.called.append("resolve")
        return replace(recipe, seed=7)

    def begin(
        self, model: LanguageModel, recipe: Recipe, sources: Sequence[Source], new: bool
    ) -> None:
        self.called.append(("begin", new, recipe.seed, len(sources)))
        if new:
            nn.init.eye_(model.get_parameter("head.weight"))

    def lr_shares(self) -> Mapping[str, float]:
        return {HEAD: 0.0}

    def before_step(self, model: nn.Module, progress: float) -> None:
        self.called.append(progress)

    def extra_loss(self, batch: Batch, logits: Tensor, targets: Tensor) -> Extra:
        assert len(logits) == len(targets)
        return Extra(self.scale * logits.square().sum(), 1000.0 * batch.num_bytes)


def events(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "train"]


def test_hooks_are_called_in_their_order_and_again_on_resume(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    hooks = Noted()
    model = train_recipe(byte_recipe, tmp_path / "run", hooks=hooks)
    steps = byte_recipe.train.steps or 0
    shares = [step / steps for step in range(steps)]
    assert hooks.called == ["resolve", ("begin", True, 7, 1), *shares]
    head = model.get_parameter("head.weight")
    assert torch.equal(head, torch.eye(*head.shape))  # set at the beginning, without a rate since
    again = Noted()
    train_recipe(byte_recipe, tmp_path / "run", resume=True, hooks=again)
    assert again.called == ["resolve", ("begin", False, 7, 1)]


def test_an_extra_loss_is_minimised_and_its_flops_count_but_it_is_not_reported(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(byte_recipe, seed=7)
    train_recipe(byte_recipe, tmp_path / "without", hooks=Noted())
    train_recipe(byte_recipe, tmp_path / "with", hooks=Noted(1.0))
    train_recipe(recipe, tmp_path / "plain")
    without, extra, plain = (events(tmp_path / name) for name in ("without", "with", "plain"))
    assert extra[0]["bits_per_byte"] == without[0]["bits_per_byte"]
    assert extra[-1]["bits_per_byte"] != without[-1]["bits_per_byte"]
    more = without[-1]["flops"] - plain[-1]["flops"]
    assert round(more) == 1000 * without[-1]["bytes_seen"]
