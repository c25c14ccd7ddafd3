"""Trainings on noised text go on exactly, and leave noised bytes out of the loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import blt
from blt import vocab
from blt.data.segments import MemorySegments
from blt.data.text import Source
from blt.train import Recipe, Report, train_recipe
from blt.train.corpus import texts_of
from metrics import losses


@pytest.mark.parametrize("kind", ["byte", "lookup", "token"])
def test_a_resumed_noised_training_is_the_uninterrupted_one(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    plain: Recipe = request.getfixturevalue(f"{kind}_recipe")
    recipe = replace(plain, data=replace(plain.data, noise=0.5))

    def interrupt(report: Report) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    whole = train_recipe(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_recipe(with_checkpoints(recipe), tmp_path / "run", on_progress=interrupt)
    again = train_recipe(with_checkpoints(recipe), tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    train_recipe(plain, tmp_path / "plain")
    assert losses(tmp_path / "plain") != losses(tmp_path / "whole")


def with_checkpoints(recipe: Recipe) -> Recipe:
    return replace(recipe, train=replace(recipe.train, checkpoint_every_seconds=1e-9))


def test_loss_and_its_mean_are_of_what_the_noise_left(byte_recipe: Recipe) -> None:
    """In a text of small letters in upper case only what has no case is asked for."""
    data = replace(byte_recipe.data, noise=1.0, noises=("UpperCase",))
    source = Source("", MemorySegments([b"ab-" * 30], 200), [], {})
    (text,) = texts_of([source], data)
    loader = blt.data.Loader([text], batch_bytes=92, context_bytes=200)
    batch = next(loader)
    assert vocab.decode(batch.documents[0]) == b"AB-" * 30
    assert batch.num_targets == 31  # dashes and EOS
    assert batch.num_bytes == 90
    assert set(batch.targets.tolist()) == {vocab.PAD, ord("-") + vocab.OFFSET, vocab.EOS}


def test_a_batch_with_nothing_to_ask_for_has_no_loss_and_the_training_goes_on(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "x.txt").write_text("abcdefgh" * 500)
    data = replace(
        byte_recipe.data, sources=(str(tmp_path / "x.txt"),), noise=1.0, noises=("UpperCase",)
    )
    recipe = replace(byte_recipe, data=data, train=replace(byte_recipe.train, evals=0))
    train_recipe(recipe, tmp_path / "run")
    assert losses(tmp_path / "run") == [0.0] * 8
