"""A run goes on where its text has moved, and with settings that were changed on purpose."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt import cli
from blt.data.loader import loader_of
from blt.errors import UserError
from blt.machine import precision
from blt.train import Recipe, TrainConfig, job, read_recipe, train_recipe
from checkpoints import equal_weights
from metrics import events, losses, reports


def changes(run: Path) -> list[dict[str, Any]]:
    path = run / "changes.json"
    return json.loads(path.read_text()) if path.is_file() else []


@pytest.fixture
def moved(byte_recipe: Recipe, tmp_path: Path) -> tuple[Recipe, Recipe]:
    """A recipe over a copy of the text, and the same once that has another name."""
    found = []
    for name in ("before", "after"):
        shutil.copytree(Path(byte_recipe.data.sources[0]).parent, tmp_path / name)
        data = replace(byte_recipe.data, sources=(str(tmp_path / name),))
        found.append(replace(byte_recipe, data=data))
    return found[0], found[1]


def longer(recipe: Recipe, **train: Any) -> Recipe:
    return replace(recipe, train=replace(recipe.train, steps=12, **train))


def test_a_run_that_is_taken_up_computes_as_before_on_the_same_device(
    byte_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether bfloat16 is faster is measured, and a busy machine may say otherwise later."""
    monkeypatch.setattr(precision, "_settled", {})
    here = torch.device("cpu")
    precision.settle_bfloat16(here, True)
    recipe = replace(byte_recipe, train=replace(byte_recipe.train, precision="auto"))
    train_recipe(recipe, tmp_path / "run")
    for name in ("later", "elsewhere"):
        shutil.copytree(tmp_path / "run", tmp_path / name)
    model = train_recipe(longer(recipe), tmp_path / "run", resume=True)
    precision.settle_bfloat16(here, False)
    later = train_recipe(longer(recipe), tmp_path / "later", resume=True)
    assert equal_weights(later, model)
    assert precision.settled_bfloat16(here) is True
    precision.settle_bfloat16(here, False)
    monkeypatch.setattr(job, "device_name", lambda device: "another CPU")
    elsewhere = train_recipe(longer(recipe), tmp_path / "elsewhere", resume=True)
    assert not equal_weights(elsewhere, model)


def test_a_change_on_purpose_is_recorded_and_takes_effect(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    run, said = tmp_path / "run", list[str]()
    train_recipe(byte_recipe, run)
    shutil.copytree(run, tmp_path / "same")
    other = longer(byte_recipe, lr=1e-5)
    with pytest.raises(UserError, match=r"another train\.lr; .*--change train\.lr="):
        train_recipe(other, run, resume=True)
    assert read_recipe(run / "recipe.toml") == byte_recipe  # a refusal leaves no trace
    train_recipe(other, run, resume=True, change=("train.lr",), say=said.append)
    assert changes(run) == [
        {"step": 8, "name": "train.lr", "was": 1e-2, "is": 1e-5},
        {"step": 8, "name": "train.steps", "was": 8, "is": 12},
    ]
    assert "from step 8: train.lr 0.01 → 1e-05" in said
    assert all(event["lr"] <= 1e-5 for event in reports(run)[8:])
    assert read_recipe(run / "recipe.toml") == other
    # The text stays in its order: the same steps without the change read as many bytes.
    train_recipe(longer(byte_recipe), tmp_path / "same", resume=True)
    for key in ("step", "bytes_seen"):
        assert [e[key] for e in reports(run)] == [e[key] for e in reports(tmp_path / "same")]
    assert changes(tmp_path / "same") == [{"step": 8, "name": "train.steps", "was": 8, "is": 12}]
    assert not equal_weights(
        blt.load(run / "checkpoint"), blt.load(tmp_path / "same" / "checkpoint")
    )


def test_a_run_that_is_to_last_longer_is_evaluated_as_often_as_asked(
    byte_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(byte_recipe, train=replace(byte_recipe.train, evals=4, eval_bytes=64))
    train_recipe(recipe, tmp_path / "run")
    train = replace(recipe.train, steps=32)
    train_recipe(replace(recipe, train=train), tmp_path / "run", resume=True)
    scored = [e["step"] for e in reports(tmp_path / "run") if "heldout_bits_per_byte" in e]
    assert scored == [2, 4, 6, 8, 16, 24, 32]


def test_a_large_seed_can_be_taken_up(byte_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(byte_recipe, seed=2**63 - 1)
    train_recipe(recipe, tmp_path / "run")
    train_recipe(longer(recipe), tmp_path / "run", resume=True)
    assert reports(tmp_path / "run")[-1]["step"] == 12
    with pytest.raises(ValueError, match=r"seed must lie in 0\.\.2\^63 - 1"):
        replace(recipe, seed=2**63)


def test_other_batches_go_on_in_the_same_text(byte_recipe: Recipe, tmp_path: Path) -> None:
    train_recipe(byte_recipe, tmp_path / "run")
    place = json.loads((tmp_path / "run/checkpoint/trainer.json").read_text())
    data = replace(byte_recipe.data, batch_bytes=128)
    other = longer(replace(byte_recipe, data=data))
    train_recipe(other, tmp_path / "run", resume=True, change=("data.batch_bytes",))
    then = json.loads((tmp_path / "run/checkpoint/trainer.json").read_text())
    read = then["bytes_seen"] - place["bytes_seen"]
    given = [x["loader"]["sources"][0]["given"] for x in (place, then)]
    assert given[1] - given[0] == read  # not a byte twice, and none left out
    assert 4 * 100 < read <= 4 * 127


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"target_patch_size": 3.0}, "target_patch_size"),
    ],
)
def test_what_cannot_change_is_refused_by_name(
    change: dict[str, Any], name: str, byte_recipe: Recipe, tmp_path: Path
) -> None:
    train_recipe(byte_recipe, tmp_path / "run")
    with pytest.raises(UserError, match=f"another {name}, which cannot change"):
        train_recipe(replace(byte_recipe, **change), tmp_path / "run", resume=True, change=(name,))


def test_moved_text_goes_on_bit_for_bit_and_other_text_is_refused(
    moved: tuple[Recipe, Recipe], tmp_path: Path
) -> None:
    before, after = moved
    run = tmp_path / "run"
    train_recipe(longer(before), tmp_path / "whole")
    train_recipe(before, run)
    shutil.copytree(run, tmp_path / "stays")
    train_recipe(longer(before), tmp_path / "stays", resume=True)
    shutil.rmtree(before.data.sources[0])
    train_recipe(longer(after), run, resume=True)
    assert changes(run)[0]["name"] == "data.sources"
    assert equal_weights(blt.load(run / "checkpoint"), blt.load(tmp_path / "stays" / "checkpoint"))
    assert losses(run) == losses(tmp_path / "stays")
    (text,) = Path(after.data.sources[0]).iterdir()
    text.write_text(text.read_text() + "and one more")
    held = read_recipe(run / "recipe.toml")
    more = replace(after, train=replace(after.train, steps=20))
    with pytest.raises(UserError, match="the text to train on has changed"):
        train_recipe(more, run, resume=True)
    assert read_recipe(run / "recipe.toml") == held


def test_the_command_line_goes_on_from_a_folder(
    moved: tuple[Recipe, Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = moved
    run = tmp_path / "run"
    train_recipe(before, run)
    shutil.rmtree(before.data.sources[0])
    sources = json.dumps(list(after.data.sources))
    changed = ["--change", f"data.sources={sources}", "--change", "train.lr=2e-3"]
    assert cli.main(["train", "--resume", str(run), *changed, "--change", "train.steps=9"]) == 0
    assert "from step 8: train.lr 0.01 → 0.002" in capsys.readouterr().out
    assert [one["name"] for one in changes(run)] == ["data.sources", "train.lr", "train.steps"]
    for arguments, message in (
        (["--resume", str(run), "--change", "kind=blt"], "kind: cannot change while a run"),
        (["--resume", str(run), "--change", "byte_model.dim=8"], "byte_model.dim: cannot change"),
        (["--resume", str(run), "--change", "train.optimizer=muon"], "train.optimizer: cannot"),
        (["--resume", str(run), "--change", "train.lr"], "section.key=value"),
        ([str(run), "--change", "train.lr=1"], "--change is for a run that goes on"),
        ([str(run)], "name a recipe"),
        (["--resume"], "--resume needs a run"),
        (["--resume", "--run", str(tmp_path / "none")], "no run to resume here"),
    ):
        assert cli.main(["train", *arguments]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert read_recipe(run / "recipe.toml").train.lr == 2e-3


@pytest.mark.parametrize("epochs", [1.0, 2.0])
def test_epochs_end_after_so_many_passes(
    epochs: float, byte_recipe: Recipe, tmp_path: Path
) -> None:
    train = TrainConfig(epochs=epochs, lr=1e-3, precision="float32", evals=0)
    train_recipe(replace(byte_recipe, train=train), tmp_path / "run")
    (data,) = events(tmp_path / "run", "data")
    steps = reports(tmp_path / "run")
    wanted = epochs * data["train_bytes"]
    assert steps[-2]["bytes_seen"] < wanted <= steps[-1]["bytes_seen"]
    assert steps[-1]["bytes_seen"] - wanted < byte_recipe.data.batch_bytes
    assert steps[-1]["progress"] == 1


def test_bytes_end_a_training(byte_recipe: Recipe, tmp_path: Path) -> None:
    train = TrainConfig(bytes=1000, lr=1e-3, precision="float32", evals=0)
    train_recipe(replace(byte_recipe, train=train), tmp_path / "run")
    seen = [event["bytes_seen"] for event in reports(tmp_path / "run")]
    assert seen[-2] < 1000 <= seen[-1]


def test_epochs_of_weighted_sources_are_refused(byte_recipe: Recipe) -> None:
    data = replace(byte_recipe.data, weights=(1.0,))
    with pytest.raises(UserError, match=r"train\.epochs: .*give train\.bytes"):
        replace(byte_recipe, data=data, train=TrainConfig(epochs=1))
    with pytest.raises(UserError, match=r"train\.epochs must be positive"):
        TrainConfig(epochs=0)


def test_a_pass_is_every_byte_once() -> None:
    """What the loop counts is what the loader gives."""
    documents = [b"a" * 70, b"b" * 33, b"c" * 250]
    loader = loader_of(documents, batch_bytes=64, context_bytes=50)
    read = 0
    while loader.state()["sources"][0]["epoch"] == 0:
        read += next(loader).num_bytes
    assert sum(map(len, documents)) <= read < sum(map(len, documents)) + 64
