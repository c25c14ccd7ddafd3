"""A training may begin from a model that exists: as it is, or changed on purpose and measured."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import blt
from begun import begun, changed
from blt.checkpoint.card import write_card
from blt.checkpoint.convert import convert
from blt.checkpoint.open import open_checkpoint
from blt.checkpoint.origin import shown
from blt.checkpoint.pretrained import PRETRAINED, read_patching, shipped
from blt.data.form import SourceConfig
from blt.data.prepare import Options, prepare
from blt.errors import UserError
from blt.train import Recipe, TrainConfig, read_recipe, train_recipe
from checkpoints import equal_weights, random_model
from conversations import write as write_rows
from metrics import events, reports
from processes import train, write
from shapes import tiny_config


@pytest.mark.parametrize("kind", ["blt", "byte", "token"])
@pytest.mark.parametrize("where", ["checkpoint", "run"])
def test_no_step_leaves_the_model_as_it_was(
    kind: str, where: str, runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    folder = runs[kind] / "checkpoint" if where == "checkpoint" else runs[kind]
    recipe = from_file(kind, folder)
    train_recipe(recipe, tmp_path / "run")
    was, now = blt.load(runs[kind] / "checkpoint"), blt.load(tmp_path / "run" / "checkpoint")
    assert equal_weights(was, now)
    assert was.config == now.config
    assert was.files() == now.files()  # the tokenizer
    if kind == "byte":
        rules = [
            read_patching(path / "checkpoint" / "patching.json")
            for path in (runs[kind], tmp_path / "run")
        ]
        assert rules[0] == rules[1]
    assert begun(tmp_path / "run")["changed"] == []
    assert "as_changed" not in begun(tmp_path / "run")["heldout"]
    # What the recipe left out is in the run folder.
    section = {"blt": "model", "byte": "byte_model", "token": "token_model"}[kind]
    assert getattr(read_recipe(tmp_path / "run" / "recipe.toml"), section) == was.config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_of_transformers_is_trained_in_float32(
    dtype: torch.dtype, from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = blt.BLT(tiny_config(encoder_ff_dim=96, decoder_ff_dim=96)).to(dtype)
    model.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers")
    said: list[str] = []
    train_recipe(from_file("blt", tmp_path / "theirs"), tmp_path / "run", say=said.append)
    now = blt.load(tmp_path / "run" / "checkpoint")
    assert equal_weights(model.float(), now)
    assert begun(tmp_path / "run")["stored_as"] == str(dtype).removeprefix("torch.")
    assert any("stored as bfloat16" in line for line in said) == (dtype == torch.bfloat16)


def test_a_folder_in_int8_is_trained_in_float32(
    from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    random_model(0).save(tmp_path / "floats")
    convert(tmp_path / "floats", tmp_path / "int8", precision="int8")
    said: list[str] = []
    train_recipe(from_file("blt", tmp_path / "int8"), tmp_path / "run", say=said.append)
    assert equal_weights(blt.load(tmp_path / "int8"), blt.load(tmp_path / "run" / "checkpoint"))
    assert begun(tmp_path / "run")["stored_as"] == "float32, int8"
    assert any("stored as float32, int8, and trained as float32" in line for line in said)


def test_8_bits_of_other_layouts_are_refused_by_name(
    from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    random_model(0).save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers")
    (tmp_path / "theirs" / "checksums.json").unlink()
    weights = load_file(tmp_path / "theirs" / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].to(torch.int8)
    save_file(weights, tmp_path / "theirs" / "model.safetensors")
    named = r"lm_head\.weight' is I8.*name the folder that they were made from"
    with pytest.raises(UserError, match=named):
        train_recipe(from_file("blt", tmp_path / "theirs"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_model_in_the_package_of_each_kind(
    from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    train_recipe(from_file("blt", PRETRAINED), tmp_path / "blt")
    assert equal_weights(blt.load(), blt.load(tmp_path / "blt" / "checkpoint"))
    train_recipe(from_file("byte", PRETRAINED), tmp_path / "byte")
    with shipped("entropy_model") as folder:
        assert equal_weights(blt.load(folder), blt.load(tmp_path / "byte" / "checkpoint"))
    with pytest.raises(UserError, match="no token model"):
        from_file("token", PRETRAINED)


def test_a_token_models_card_says_that_it_reads_tokens(runs: dict[str, Path]) -> None:
    card = write_card(open_checkpoint(runs["token"] / "checkpoint"), "blt", "me/mine", None)
    assert "tokens over bytes, by the BPE of its tokenizer.json" in card
    assert "no tokenizer" not in card
    assert "tokenizer-free" not in card


def test_the_card_says_what_was_changed_and_what_it_cost(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = from_file("blt", runs["blt"], "[model.patching]\nthreshold = 1.0")
    train_recipe(recipe, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint"
    card = write_card(open_checkpoint(folder), "blt", "me/mine", None)
    for values in begun(tmp_path / "run")["heldout"].values():
        assert f"{values['bits_per_byte']:.3f}" in card
    assert "model.patching.threshold" in card
    assert "began from `blt` (SHA-256 of the weights: `" in card
    (folder / "init.json").write_text("{}")
    (folder / "checksums.json").unlink()
    with pytest.raises(UserError, match=r"init\.json: is not as `blt train` wrote it"):
        write_card(open_checkpoint(folder), "blt", "me/mine", None)


def test_where_a_model_lay_is_not_in_what_is_published(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    said: list[str] = []
    weights = runs["blt"] / "checkpoint" / "model.safetensors"
    train_recipe(from_file("blt", runs["blt"]), tmp_path / "run", say=said.append)
    changes = ("entropy_model=pretrained", "target_patch_size=3.0")
    again = from_file("blt", tmp_path / "run", "", *changes)
    train_recipe(again, tmp_path / "again", say=said.append)
    for name in ("run", "again"):
        for path in (tmp_path / name / "checkpoint").glob("*.json"):
            assert str(tmp_path.parent) not in path.read_text(), path
    assert f"begins from {runs['blt']}: " in said[0]  # on this machine it may be known
    found = begun(tmp_path / "run")
    assert found["init"] == "blt"
    assert found["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert changed(tmp_path / "again")["entropy_model"] == ("run", "pretrained")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pretrained", "pretrained"),
        ("owner/name", "owner/name"),
        ("/home/me/models/mine", "mine"),
        ("/home/me/runs/mine/checkpoint", "mine"),
        ("runs/mine/checkpoint/", "mine"),
        ("../mine", "mine"),
    ],
)
def test_a_hub_id_is_told_whole_and_a_folder_by_its_last_name(name: str, expected: str) -> None:
    assert shown(name) == expected


@pytest.mark.parametrize("kind", ["blt", "byte", pytest.param("token", marks=pytest.mark.slow)])
def test_two_processes_begin_from_a_model_as_one_does(
    kind: str, runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    changes = {"blt": ["target_patch_size=3.0"], "byte": ["byte_model.hash_rows=64"], "token": []}
    changes["byte"].append("byte_model.hash_ngram_sizes=[3, 4]")
    recipe = from_file(kind, runs[kind], "", "train.lr=1e-3", *changes[kind])
    train(write(recipe, tmp_path / "1.toml", steps=4, accumulate=2), tmp_path / "one")
    train(write(recipe, tmp_path / "2.toml", steps=4), tmp_path / "two", processes=2)
    assert begun(tmp_path / "one") == begun(tmp_path / "two")
    for a, b in zip(reports(tmp_path / "one"), reports(tmp_path / "two"), strict=True):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-4)


def test_a_compiled_training_from_a_model_has_the_losses_of_a_plain_one(
    runs: dict[str, Path],
    from_file: Callable[..., Recipe],
    tmp_path: Path,
    without_a_compiler: None,
) -> None:
    recipe = from_file("blt", runs["blt"], "", "train.steps=3", "train.lr=1e-3")
    compiled = replace(recipe, train=replace(recipe.train, compile=True))
    train_recipe(recipe, tmp_path / "plain")
    train_recipe(compiled, tmp_path / "compiled")
    for a, b in zip(reports(tmp_path / "plain"), reports(tmp_path / "compiled"), strict=True):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-4)


def test_it_learns_from_there(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = from_file("blt", runs["blt"], "", "train.steps=3", "train.lr=1e-3")
    train_recipe(recipe, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [event for event in map(json.loads, lines) if event["event"] == "train"]
    assert steps[0]["bits_per_byte"] < 6  # from random weights it is 8
    was, now = (
        blt.load(run / "checkpoint").state_dict() for run in (runs["blt"], tmp_path / "run")
    )
    for name in was:  # what only cuts stays as it was, all else learns
        assert torch.equal(was[name], now[name]) == name.startswith("entropy_model."), name
    # What it began from goes with the model, to its card.
    assert begun(tmp_path / "run" / "checkpoint") == begun(tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("blt", "[model]\nlocal_dim = 64", r"model\.local_dim: is 64 here, and 16 in "),
        ("blt", "[model.entropy_model]\ndim = 64", r"model\.entropy_model\.dim: is 64 .* 16 in "),
        ("blt", '[model]\nhash_fold = ["case"]', r"model\.hash_fold: is \['case'\] here"),
        ("blt", "[model]\nlocal_dimm = 64", "unknown key 'model.local_dimm'; did you mean"),
        ("byte", "[byte_model]\nlayers = 2", r"byte_model\.layers: is 2 here, and 1 in "),
        ("token", "[token_model]\nvocab_size = 400", r"token_model\.vocab_size: is 400 here"),
        ("blt", '[model.patching]\nrule = "entropy-monotonic"', "needs a θ of its own"),
        ("blt", '[model]\npatching = "entropy"', r"model\.patching: Input should be an object"),
    ],
)
def test_a_shape_that_contradicts_is_refused_by_its_key(
    kind: str, more: str, message: str, runs: dict[str, Path], from_file: Callable[..., Recipe]
) -> None:
    with pytest.raises(UserError, match=message):
        from_file(kind, runs[kind], more)


def test_what_cannot_be_begun_from_is_named(
    runs: dict[str, Path],
    from_file: Callable[..., Recipe],
    blt_recipe: Recipe,
    byte_recipe: Recipe,
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="holds a byte model, and this recipe is of kind 'blt'"):
        from_file("blt", runs["byte"])
    with pytest.raises(UserError, match="nowhere: no such folder"):
        from_file("blt", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"train\.steps must be positive, got 0; only with init"):
        replace(byte_recipe, train=TrainConfig(steps=0))
    # A recipe made in Python is held to the same.
    with pytest.raises(UserError, match=r"model\.local_dim: is 32 here, and 16 in"):
        train_recipe(
            replace(blt_recipe, init=str(runs["blt"]), model=tiny_config()), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="target_patch_size: a table is learned"):
        train_recipe(
            from_file("blt", runs["blt"], '[model.patching]\nrule = "lookup"'), tmp_path / "run"
        )


def test_a_recipe_that_repeats_the_shape_and_one_in_python_without_it(
    runs: dict[str, Path], from_file: Callable[..., Recipe], blt_recipe: Recipe, tmp_path: Path
) -> None:
    repeated = from_file("blt", runs["blt"], "[model]\nlocal_dim = 16\nhash_rows = 100")
    left_out = from_file("blt", runs["blt"])
    assert repeated == left_out
    train = TrainConfig(steps=0, precision="float32", eval_bytes=300)
    train_recipe(Recipe("blt", blt_recipe.data, train, init=str(runs["blt"])), tmp_path / "run")
    assert equal_weights(
        blt.load(runs["blt"] / "checkpoint"), blt.load(tmp_path / "run" / "checkpoint")
    )


def test_a_run_goes_on_when_the_model_that_it_began_from_is_gone(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    shutil.copytree(runs["blt"] / "checkpoint", tmp_path / "first")
    train_recipe(from_file("blt", tmp_path / "first", "", "train.steps=2"), tmp_path / "run")
    shutil.rmtree(tmp_path / "first")
    longer = read_recipe(tmp_path / "run" / "recipe.toml", ["train.steps=4"])
    train_recipe(longer, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run/checkpoint/trainer.json").read_text())["step"] == 4


def test_a_run_over_conversations_does_too(
    runs: dict[str, Path], blt_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a hub asked for what is called as one of its models would be."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs["blt"] / "checkpoint", tmp_path / "some/first")
    rows = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "beer " * 20}]
    chats = write_rows(tmp_path, "jsonl", [{"messages": rows}] * 4)
    source = SourceConfig(chats, messages="messages")
    data = replace(blt_recipe.data, sources=(source,), heldout=0.3)
    recipe = replace(blt_recipe, data=data, model=None, init="some/first")
    recipe = replace(recipe, train=replace(recipe.train, steps=2))
    train_recipe(recipe, tmp_path / "run")
    shutil.rmtree("some/first")
    longer = read_recipe(tmp_path / "run" / "recipe.toml", ["train.steps=4"])
    train_recipe(longer, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run/checkpoint/trainer.json").read_text())["step"] == 4


def test_a_run_that_a_kill_left_between_two_renames_goes_on_with_its_own_weights(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = from_file("byte", runs["byte"])
    train_recipe(recipe, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    beside = tmp_path / "killed" / ".checkpoint.writing"
    beside.mkdir()
    shutil.move(tmp_path / "killed" / "checkpoint", beside / "old")
    longer = replace(recipe, train=replace(recipe.train, steps=(recipe.train.steps or 0) + 1))
    for name in ("whole", "killed"):
        train_recipe(longer, tmp_path / name, resume=True)
    found = [blt.load(tmp_path / name / "checkpoint") for name in ("whole", "killed")]
    assert equal_weights(*found)


def test_where_nothing_is_held_out_no_score_is_told(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe, said = from_file("blt", runs["blt"]), list[str]()
    prepare(tmp_path / "shards", Options(recipe.data.sources, heldout=0.0))
    data = replace(recipe.data, sources=(str(tmp_path / "shards"),))
    train_recipe(replace(recipe, data=data), tmp_path / "run", say=said.append)
    assert "no text is held out to score it by" in said[0]
    begun = json.loads((tmp_path / "run" / "init.json").read_text())
    assert begun["heldout"]["as_it_was"]["bits_per_byte"] is None
    assert not any("heldout_patch_size" in event for event in events(tmp_path / "run"))
    card = write_card(open_checkpoint(tmp_path / "run" / "checkpoint"), "blt", "a/b", None)
    assert "began from" in card
    assert "held out" not in card
