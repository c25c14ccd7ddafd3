"""What is changed of a model that a training begins from is stated, measured and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import blt
from begun import begun, changed, scored
from blt.checkpoint.pretrained import load_shipped
from blt.errors import UserError
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.patching import PatchingConfig
from blt.tokens.tokenizer import ByteTokenizer
from blt.train import Recipe, train_recipe
from blt.train.begin import _changed_tokens

TEXT = b"Bytes are 8 bits of beer, and 99 bottles are on the wall."


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


def test_the_trained_model_keeps_what_it_began_as_wherever_it_is_saved(
    runs: dict[str, Path], from_file: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = from_file("byte", runs["byte"])
    for resume in (False, True):
        train_recipe(recipe, tmp_path / "run", resume).save(tmp_path / "saved")
        kept = json.loads((tmp_path / "saved/init.json").read_text())
        assert kept == begun(tmp_path / "run")


def test_target_patch_size_is_kept_unless_it_is_given(
    runs: dict[str, Path], from_file: Callable[..., Recipe]
) -> None:
    assert from_file("blt", runs["blt"]).target_patch_size == 0
    assert from_file("blt", runs["blt"], "", "target_patch_size=3").target_patch_size == 3
    assert PatchingConfig().rule == "entropy"
