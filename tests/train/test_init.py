"""A training may begin from a model that exists: as it is, or changed on purpose and measured."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import blt
from blt.checkpoint.card import write_card
from blt.checkpoint.convert import convert
from blt.checkpoint.open import open_checkpoint
from blt.checkpoint.origin import shown
from blt.checkpoint.pretrained import PRETRAINED, load_shipped, read_patching, shipped
from blt.data.prepare import Options, prepare
from blt.data.text import heldout_by_source
from blt.errors import UserError
from blt.lm import LanguageModel, TokenLM
from blt.model.config import TokenTransformerConfig
from blt.patching import PatchingConfig
from blt.texts.pieces import choose
from blt.tokens.tokenizer import ByteTokenizer
from blt.train import Recipe, TrainConfig, read_recipe, train_recipe
from blt.train.begin import _changed_tokens
from blt.train.corpus import open_text
from checkpoints import equal_weights, random_model
from processes import reports, train, write
from shapes import tiny_config

TEXT = b"Bytes are 8 bits of beer, and 99 bottles are on the wall."


@pytest.fixture(scope="module")
def runs(
    blt_recipe: Recipe,
    byte_recipe: Recipe,
    token_recipe: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    made = {"blt": blt_recipe, "byte": byte_recipe, "token": token_recipe}
    for kind, recipe in made.items():
        train_recipe(recipe, folder / kind)
    return {kind: folder / kind for kind in made}


@pytest.fixture
def from_file(blt_recipe: Recipe, tmp_path: Path) -> Callable[..., Recipe]:
    """Reads a recipe that begins from a model, with more lines and changes."""

    def read(kind: str, init: Path | str, more: str = "", *changes: str) -> Recipe:
        (source,) = blt_recipe.data.sources
        path = tmp_path / "recipe.toml"
        path.write_text(
            f'kind = "{kind}"\ninit = {json.dumps(str(init))}\n'
            f"[data]\nsources = [{json.dumps(source)}]\ncontext_bytes = 100\nbatch_bytes = 256\n"
            f'[train]\nsteps = 0\nprecision = "float32"\neval_bytes = 300\nevals = 1\n{more}'
        )
        return read_recipe(path, changes)

    return read


def begun(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "init.json").read_text())
    return found


def changed(run: Path) -> dict[str, Any]:
    return {one["key"]: (one["was"], one["is"]) for one in begun(run)["changed"]}


def scored(model: LanguageModel, recipe: Recipe) -> float:
    """Independent of the training: one text after the other, each in one piece."""
    texts = [t for held in heldout_by_source(open_text(recipe)).values() for t in held]
    pieces = choose(texts, recipe.train.eval_bytes, recipe.data.context_bytes)
    nats = sum(model.nats([piece]) for piece in pieces)
    return nats / sum(map(len, pieces)) / float(torch.log(torch.tensor(2.0)))


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


@pytest.mark.parametrize("kind", ["blt", "byte", "token"])
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


@pytest.mark.parametrize(
    ("more", "changes", "keys"),
    [
        ("[model.patching]\nthreshold = 1.0", (), {"model.patching.threshold"}),
        ("", ("target_patch_size=2.0",), {"model.patching.threshold"}),
        ('[model.patching]\nrule = "space"', (), {"model.patching.rule", "entropy_model"}),
        ("[model.patching]\nmax_patch_length = 3", (), {"model.patching.max_patch_length"}),
        ("[model]\nhash_rows = 150", (), {"model.hash_rows"}),
        ("[model]\nhash_ngram_sizes = [2, 3]", (), {"model.hash_ngram_sizes"}),
        ('[model.patching]\nrule = "learned"', ("target_patch_size=3.0",), {"router"}),
        ('[model.patching]\nrule = "lookup"', ("target_patch_size=3.0",), {"lookup_table"}),
    ],
)
def test_what_is_changed_is_stated_and_measured(
    more: str,
    changes: tuple[str, ...],
    keys: set[str],
    runs: dict[str, Path],
    from_file: Callable[..., Recipe],
    tmp_path: Path,
) -> None:
    recipe, said = from_file("blt", runs["blt"], more, *changes), list[str]()
    train_recipe(recipe, tmp_path / "run", say=said.append)
    assert keys <= changed(tmp_path / "run").keys()
    was, now = blt.load(runs["blt"] / "checkpoint"), blt.load(tmp_path / "run" / "checkpoint")
    heldout = begun(tmp_path / "run")["heldout"]
    assert heldout["as_it_was"]["bits_per_byte"] == pytest.approx(scored(was, recipe), rel=1e-5)
    assert heldout["as_changed"]["bits_per_byte"] == pytest.approx(scored(now, recipe), rel=1e-5)
    for value in ("as_it_was", "as_changed"):
        assert any(f"{heldout[value]['bits_per_byte']:.3f} bits per byte" in line for line in said)
    for key in keys:
        assert any(line.startswith(f"changed: {key}") for line in said)
    # Weights that have the same place in both are the same.
    shared = {k for k in was.state_dict().keys() & now.state_dict().keys() if "ngram" not in k}
    assert all(torch.equal(was.state_dict()[k], now.state_dict()[k]) for k in shared)


def test_tables_of_more_rows_say_the_same(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    train_recipe(from_file("blt", runs["blt"], "[model]\nhash_rows = 300"), tmp_path / "more")
    was, now = blt.load(runs["blt"] / "checkpoint"), blt.load(tmp_path / "more" / "checkpoint")
    ids = blt.encode(TEXT)
    assert now.config.hash_rows == 300
    assert torch.equal(was.logits(ids), now.logits(ids))
    train_recipe(from_file("blt", tmp_path / "more", "[model]\nhash_rows = 100"), tmp_path / "less")
    again = blt.load(tmp_path / "less" / "checkpoint")
    torch.testing.assert_close(was.logits(ids), again.logits(ids))  # the mean of equal rows


def test_another_entropy_model_cuts_from_the_first_step(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = from_file("blt", runs["blt"], "", "entropy_model=pretrained", "target_patch_size=3.0")
    train_recipe(recipe, tmp_path / "run")
    found = changed(tmp_path / "run")
    assert found["entropy_model"][1] == "pretrained"
    assert found["model.entropy_model.dim"][0] == 16
    now, theirs = blt.load(tmp_path / "run" / "checkpoint"), load_shipped().entropy_model
    assert isinstance(now, blt.BLT)
    assert theirs is not None
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(now.entropy_model.state_dict()[name], tensor)  # type: ignore[union-attr]


def test_a_model_that_cuts_without_entropies_may_be_given_an_entropy_model(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    by_entropy = ('[model.patching]\nrule = "entropy"', "target_patch_size=3.0")
    for rule in ("lookup", "space"):
        without = from_file("blt", runs["blt"], f'[model.patching]\nrule = "{rule}"', by_entropy[1])
        train_recipe(without, tmp_path / rule)
        recipe = from_file("blt", tmp_path / rule, *by_entropy, "entropy_model=pretrained")
        train_recipe(recipe, tmp_path / f"{rule}-entropy")
        now = blt.load(tmp_path / f"{rule}-entropy" / "checkpoint")
        assert isinstance(now, blt.BLT)
        assert now.config.patching.rule == "entropy"
        assert now.entropy_model is not None
        missing = rf"entropy_model: patching rule 'entropy' needs one, and .*{rule} has none"
        with pytest.raises(UserError, match=missing):
            from_file("blt", tmp_path / rule, *by_entropy)


def test_tokens_of_another_tokenizer_begin_as_what_their_bytes_were(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    was = blt.load(runs["token"] / "checkpoint")
    assert isinstance(was, TokenLM)
    other = ByteTokenizer.train([b"some bottles of beer, some words of wine " * 9], 320)
    (tmp_path / "tokenizer.json").write_text(other.json)
    recipe = from_file(
        "token",
        runs["token"],
        "[token_model]\nvocab_size = 320",
        f"tokenizer={tmp_path / 'tokenizer.json'}",
    )
    train_recipe(recipe, tmp_path / "run")
    now = blt.load(tmp_path / "run" / "checkpoint")
    assert isinstance(now, TokenLM)
    assert now.tokenizer.json == other.json
    old_rows, rows = was.state_dict()["embedding"], now.state_dict()["embedding"]
    before = {data: i for i, data in enumerate(was.tokenizer.written())}
    for index, data in enumerate(now.tokenizer.written()):
        parts = [before[data]] if data in before else was.tokenizer.encode(data)
        torch.testing.assert_close(rows[index], old_rows[parts].mean(0))
    assert torch.equal(rows[now.bos], old_rows[was.bos])
    assert {"tokenizer", "token_model.vocab_size"} <= changed(tmp_path / "run").keys()


def test_tables_of_other_tokens_begin_at_zero_and_so_it_is_said(tmp_path: Path) -> None:
    texts = (b"some bottles of beer " * 9, b"words of wine and cheese " * 9)
    old, new = (ByteTokenizer.train([text], 280) for text in texts)
    (tmp_path / "tokenizer.json").write_text(new.json)
    sizes = {"vocab_size": 280, "dim": 16, "heads": 2, "layers": 1, "ff_dim": 32}
    tables = {"hash_of": "tokens", "hash_ngram_sizes": (2,), "hash_rows": 10}
    shape = TokenTransformerConfig(**sizes, **tables)  # type: ignore[arg-type]
    recipe: Any = SimpleNamespace(
        token_model=replace(shape, hash_rows=20), tokenizer=str(tmp_path / "tokenizer.json")
    )
    beginning: Any = SimpleNamespace(notes={})
    found = _changed_tokens(beginning, TokenLM(shape, old), recipe)
    assert found.tables is not None
    assert not found.tables.ngram.any()
    assert beginning.notes["hash_rows"] == "begins at zero"


def test_a_larger_vocabulary_keeps_the_rows_of_the_tokens_that_are_there(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    was = blt.load(runs["token"] / "checkpoint")
    assert isinstance(was, TokenLM)
    size = was.config.vocab_size + 20
    path = tmp_path / "tokenizer.json"
    path.write_text(was.tokenizer.json)
    shape = f"[token_model]\nvocab_size = {size}"
    recipe = from_file("token", runs["token"], shape, f"tokenizer={path}")
    train_recipe(recipe, tmp_path / "run")
    now = blt.load(tmp_path / "run" / "checkpoint")
    assert isinstance(now, TokenLM)
    for name in ("embedding", "head.weight"):
        old_rows, rows = was.state_dict()[name], now.state_dict()[name]
        assert torch.equal(rows[: was.tokenizer.vocab_size], old_rows[: was.tokenizer.vocab_size])
        assert torch.equal(rows[[now.bos, now.eos]], old_rows[[was.bos, was.eos]])
    assert str(size) in str(changed(tmp_path / "run")["token_model.vocab_size"])


def test_a_byte_model_gets_tables_that_add_nothing_at_first(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    more = "[byte_model]\nhash_ngram_sizes = [3, 4]\nhash_rows = 64"
    train_recipe(from_file("byte", runs["byte"], more), tmp_path / "run")
    was, now = blt.load(runs["byte"] / "checkpoint"), blt.load(tmp_path / "run" / "checkpoint")
    assert torch.equal(was.logits(blt.encode(TEXT)), now.logits(blt.encode(TEXT)))
    assert now.config.hash_ngram_sizes == (3, 4)


def test_a_run_goes_on_when_the_model_that_it_began_from_is_gone(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    shutil.copytree(runs["blt"] / "checkpoint", tmp_path / "first")
    train_recipe(from_file("blt", tmp_path / "first", "", "train.steps=2"), tmp_path / "run")
    shutil.rmtree(tmp_path / "first")
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
    events = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert not any("heldout_patch_size" in event for event in events)
    card = write_card(open_checkpoint(tmp_path / "run" / "checkpoint"), "blt", "a/b", None)
    assert "began from" in card
    assert "held out" not in card


def test_target_patch_size_is_kept_unless_it_is_given(
    runs: dict[str, Path], from_file: Callable[..., Recipe]
) -> None:
    assert from_file("blt", runs["blt"]).target_patch_size == 0
    assert from_file("blt", runs["blt"], "", "target_patch_size=3").target_patch_size == 3
    assert PatchingConfig().rule == "entropy"
