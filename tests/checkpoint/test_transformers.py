"""What transformers writes we read, and what we write it reads: equal logits, equal bits."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blocks import block_blt
from blt.checkpoint.convert import convert
from blt.checkpoint.layouts.transformers_config import read_config
from blt.checkpoint.open import open_checkpoint
from blt.errors import UserError
from blt.model.config import Block
from checkpoints import (
    SCALING,
    equal_weights,
    random_config,
    random_model,
    rope,
    text_ids,
    their_config,
    their_logits,
)
from shapes import tiny_config

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("seed", range(9))
def test_our_model_is_the_same_one_in_transformers_and_back(tmp_path: Path, seed: int) -> None:
    lm, ids = random_model(seed), text_ids(seed)
    lm.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers", shard_bytes=10**5)
    theirs, report = transformers.BltForCausalLM.from_pretrained(
        tmp_path / "theirs", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = their_logits(theirs.eval(), ids)
    ours = lm.logits(ids)
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()
    read = blt.load(tmp_path / "theirs")
    assert read.config == lm.config
    assert equal_weights(read, lm)
    convert(tmp_path / "theirs", tmp_path / "back", "blt")
    assert blt.load(tmp_path / "back").config == lm.config
    assert equal_weights(blt.load(tmp_path / "back"), lm)


@pytest.mark.parametrize("seed", range(9))
def test_their_model_is_the_same_one_here_and_back(tmp_path: Path, seed: int) -> None:
    """A model that transformers makes and saves; every other one with tied embeddings."""
    torch.manual_seed(seed)
    scaling = SCALING if seed % 4 == 0 else None
    made = replace(random_config(seed), global_rope_scaling=scaling)
    tied = seed % 2 == 0
    model = transformers.BltForCausalLM(their_config(made, tie_word_embeddings=tied)).eval()
    model.save_pretrained(tmp_path / "theirs", max_shard_size="100KB" if seed % 3 else "1GB")
    ids = text_ids(seed)
    expected = their_logits(model, ids)
    lm = blt.load(tmp_path / "theirs")
    assert lm.config == made
    assert equal_weights(lm, blt.from_transformers(model))
    assert (lm.logits(ids) - expected).abs().max() <= 1e-4 * expected.abs().max()
    convert(tmp_path / "theirs", tmp_path / "back", "transformers")
    back = transformers.BltForCausalLM.from_pretrained(tmp_path / "back").eval()
    assert torch.equal(their_logits(back, ids), expected)
    assert equal_weights(back, model)


def test_shared_heads_of_keys_are_theirs_and_other_layers_are_refused(tmp_path: Path) -> None:
    lm, ids = block_blt(Block(kv_heads=2)), text_ids(0)
    lm.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers")
    theirs = transformers.BltForCausalLM.from_pretrained(tmp_path / "theirs").eval()
    assert theirs.config.global_config.num_key_value_heads == 2
    expected = their_logits(theirs, ids)
    assert (lm.logits(ids) - expected).abs().max() <= 1e-4 * expected.abs().max()
    read = blt.load(tmp_path / "theirs")
    assert read.config == lm.config
    assert equal_weights(read, lm)
    for block, named in (
        (Block(head_dim=12), "global_block.head_dim 12"),
        (Block(qkv_bias=True), "global_block.qkv_bias True"),
        (Block(kv_heads=2, qk_norm="head"), "global_block.qk_norm 'head'"),
        (Block(norm="after"), "global_block.norm 'after'"),
    ):
        block_blt(block).save(tmp_path / "other")
        with pytest.raises(UserError, match=f"transformers has no {named}"):
            convert(tmp_path / "other", tmp_path / "out", "transformers")
    with pytest.raises(UserError, match=r"Meta's layout has no global_block\.kv_heads 2"):
        convert(tmp_path / "ours", tmp_path / "out", "meta")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", range(12))
def test_absent_keys_mean_what_they_mean_in_transformers(seed: int) -> None:
    """A config.json with some of its keys left out, read by both."""
    r = random.Random(seed)
    full = their_config(random_config(2 * seed)).to_dict()
    parts = ("encoder_config", "decoder_config", "global_config", "patcher_config")
    thin = {key: value for key, value in full.items() if r.random() < 0.7}
    thin["model_type"] = "blt"
    for part in parts:
        kept = {key: value for key, value in full[part].items() if r.random() < 0.7}
        kept.pop("head_dim", None)
        thin[part] = kept if r.random() < 0.9 else None
    whole = transformers.BltConfig(**thin).to_dict()

    def found(data: dict[str, Any]) -> Any:
        try:
            return asdict(read_config(data, "here"))
        except UserError as error:
            return str(error)

    assert found(thin) == found(whole)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"patching": blt.PatchingConfig(rule="space")}, "rule 'space'"),
        ({"patching": blt.PatchingConfig(newline_reset=True)}, "newline_reset"),
        ({"encoder_cross_attention": "none"}, "without cross-attention"),
        ({"hash_ngram_sizes": ()}, "n-gram"),
    ],
)
def test_what_transformers_cannot_hold_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    blt.BLT(tiny_config(**changes)).save(tmp_path / "ours")
    with pytest.raises(UserError, match=named):
        convert(tmp_path / "ours", tmp_path / "out", "transformers")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


@pytest.mark.parametrize(
    ("part", "changes", "named"),
    [
        ("encoder_config", {"num_key_value_heads": 1}, "grouped-query"),
        ("global_config", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("patcher_config", {"vocab_size": 300}, "vocab_size 300"),
        ("patcher_config", {"sliding_window": None}, "sliding_window"),
        ("decoder_config", {"rope_parameters": {"rope_theta": 1.0}}, "differ in rope_theta"),
        ("decoder_config", {"hidden_size": 128}, "differ in hidden_size"),
        ("global_config", {"hidden_size": "big"}, "global_dim"),
        ("encoder_config", {"rope_parameters": 3}, "rope_parameters must be an object"),
        ("decoder_config", {"rope_parameters": rope(5e5, SCALING)}, "in global_config alone"),
        ("global_config", {"rope_parameters": {"rope_type": "yarn"}}, "RoPE scaling 'yarn'"),
    ],
)
def test_options_that_are_not_here_are_named(
    part: str, changes: dict[str, Any], named: str
) -> None:
    data = their_config(random_config(0)).to_dict()
    data[part] |= changes
    with pytest.raises(UserError, match=named):
        read_config(data, "config.json")


def test_precision_is_kept_or_changed_as_asked(tmp_path: Path) -> None:
    lm = random_model(1, torch.bfloat16)
    lm.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers")
    assert json.loads((tmp_path / "theirs/config.json").read_text())["dtype"] == "bfloat16"
    assert equal_weights(blt.load(tmp_path / "theirs"), lm)
    convert(tmp_path / "theirs", tmp_path / "wide", precision="float32")
    assert equal_weights(blt.load(tmp_path / "wide"), lm.float())
    convert(tmp_path / "wide", tmp_path / "narrow", "transformers", precision="bfloat16")
    theirs = transformers.BltForCausalLM.from_pretrained(tmp_path / "narrow")
    assert {parameter.dtype for parameter in theirs.parameters()} == {torch.bfloat16}
    assert equal_weights(blt.from_transformers(theirs), lm.bfloat16())


def test_a_large_tensor_is_mapped_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, ids = random_model(2), text_ids(2)
    lm.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers")
    monkeypatch.setattr("blt.files.stored.MAPPED_BYTES", 4000)
    for folder in ("ours", "theirs"):
        mapped = blt.load(tmp_path / folder)
        assert torch.equal(mapped.logits(ids), lm.logits(ids))
        with torch.no_grad():  # a model of one's own: the file stays as it is
            mapped.encoder.embedding.ngram.zero_()
        assert equal_weights(blt.load(tmp_path / folder), lm)
        assert open_checkpoint(tmp_path / folder).config == lm.config


def test_the_card_of_a_folder_stays_when_its_model_is_converted_again(tmp_path: Path) -> None:
    random_model(1).save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers")
    (tmp_path / "theirs" / "README.md").write_text("about it")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers")
    assert (tmp_path / "theirs" / "README.md").read_text() == "about it"
