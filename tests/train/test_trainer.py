"""A trainer that takes up the state of another goes on as that one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt.data.loader import loader_of
from blt.train import TrainConfig
from blt.train.state import NAMES
from blt.train.trainer import Trainer
from shapes import TINY


class Kept:
    """A checkpoint in memory, of what a trainer asks a run's folder for."""

    def __init__(self, trainer: Trainer) -> None:
        state = trainer.state()
        self.weights = {name: x.clone() for name, x in trainer.model.state_dict().items()}
        self.tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
        # The loop and the run's folder add the rest.
        clock = {"seconds": 1.0, "evals_done": 0}
        self.values = {**state.values, **clock, NAMES: sorted(state.tensors)}
        self.checkpoint = Path("checkpoint")

    def trainer_values(self) -> dict[str, Any]:
        return self.values

    def trainer_tensors(self, templates: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert set(templates) == set(self.tensors)
        return dict(self.tensors)


def trainer_of(optimizer: Any = "adamw") -> Trainer:
    torch.manual_seed(1)
    config = TrainConfig(steps=8, lr=1e-2, precision="float32", optimizer=optimizer)
    documents = [bytes(range(start, start + 90)) for start in range(0, 160, 10)]
    loader = loader_of(documents, batch_bytes=64, context_bytes=50)
    return Trainer(blt.ByteLM(TINY), loader, config)


def resumed(kept: Kept, optimizer: Any = "adamw") -> Trainer:
    trainer = trainer_of(optimizer)
    trainer.model.load_state_dict(kept.weights)
    trainer.restore(kept)  # type: ignore[arg-type]
    return trainer


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_steps_after_resuming_are_those_of_an_uninterrupted_training(optimizer: str) -> None:
    whole = trainer_of(optimizer)
    for _ in range(3):
        whole.step(0.5)
    kept = Kept(whole)
    cut = resumed(kept, optimizer)
    for _ in range(2):
        expected, found = whole.step(0.6), cut.step(0.6)
        assert (found.nats, found.grad_norm) == (expected.nats, expected.grad_norm)
    for a, b in zip(whole.parameters, cut.parameters, strict=True):
        assert torch.equal(a, b)
    assert (cut.steps, cut.bytes_seen, cut.flops) == (5, whole.bytes_seen, whole.flops)


def test_a_resumed_training_remembers_what_was_skipped_and_what_gradients_are_usual() -> None:
    trainer = trainer_of()
    trainer.step(0.5)
    with torch.no_grad():
        trainer.parameters[0].fill_(torch.nan)
    assert trainer.step(0.5).skipped
    assert trainer.step(0.5).skipped
    state, again = trainer.state().values, resumed(Kept(trainer)).state().values
    assert (again["skipped"], again["skipped_in_a_row"]) == (2, 2)
    assert again["usual_norm"] == state["usual_norm"] > 0
