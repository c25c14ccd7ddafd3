"""Qwen and OLMo models become byte models as Llamas do: cut, taught, trained and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import blt
from blt.byteify import hooks_of
from blt.evals.models import reader_of
from blt.files import checksums
from blt.model.config import Block
from blt.patching import PatchingConfig
from blt.tokens.tokenizer import ByteTokenizer
from blt.train import DataConfig, Recipe, TrainConfig, train_recipe
from blt.train.sections import ByteifyConfig
from llamas import their_model
from metrics import losses
from shapes import tiny_config
from texts import MULTILINGUAL

pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DIGITS = {"llama": r"\p{N}{1,3}", "qwen2": r"\p{N}", "qwen3": r"\p{N}", "olmo2": r"\p{N}{1,3}"}
CLASSES = {"llama": "PreTrainedTokenizerFast", "olmo2": "GPT2Tokenizer"}
BLOCKS = {
    "llama": Block(kv_heads=2),
    "qwen2": Block(kv_heads=2, qkv_bias=True),
    "qwen3": Block(kv_heads=2, head_dim=16, qk_norm="head"),
    "olmo2": Block(kv_heads=2, qk_norm="all", norm="after"),
}


def source_of(kind: str, folder: Path, text: bytes) -> Path:
    """A random model with a tokenizer such as its family's."""
    library, level = tokenizers, tokenizers.pre_tokenizers.ByteLevel
    tokenizer = library.Tokenizer(library.models.BPE())
    pattern = library.Regex(WORDS + DIGITS[kind] + REST)
    split = library.pre_tokenizers.Split(pattern, "isolated")
    bytes_of = level(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence([split, bytes_of])
    tokenizer.decoder = library.decoders.ByteLevel()
    if kind.startswith("qwen"):
        tokenizer.normalizer = library.normalizers.NFC()
    trainer = library.trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=level.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text.decode()], trainer)
    end = "<|endoftext|>"
    tokenizer.add_special_tokens([end])
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    if kind != "qwen3":
        del shape["head_dim"]
    theirs = their_model(
        0, kind, vocab_size=340, hidden_size=32, num_hidden_layers=2, intermediate_size=48, **shape
    )
    theirs.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": CLASSES.get(kind, "Qwen2Tokenizer"), "eos_token": end}
    if not kind.startswith("qwen"):
        described["bos_token"] = end
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_family_s_tokenizer_cuts_bytes_as_it_is_written(kind: str, tmp_path: Path) -> None:
    folder = source_of(kind, tmp_path, MULTILINGUAL)
    reader = reader_of(folder)
    assert isinstance(reader.tokenizer, ByteTokenizer)
    written = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "don't 12345 bottles,\n\n  caf\u00e9 \u4f60\u597d"
    found = reader.tokenizer.encode(text.encode())
    assert found == written.encode(text, add_special_tokens=False).ids
    for data in (MULTILINGUAL, b"\xff\xfe e\xcc\x81\x00", b""):
        assert reader.tokenizer.decode(reader.tokenizer.encode(data)) == data
    assert reader.bos == reader.eos == written.token_to_id("<|endoftext|>")


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_family_s_model_becomes_a_byte_model(
    kind: str, data: DataConfig, train: TrainConfig, tmp_path: Path
) -> None:
    """Loss falls in both stages, and what is written is read again bit for bit."""
    text = b"".join(path.read_bytes() for path in sorted(Path(data.sources[0]).iterdir()))
    source = source_of(kind, tmp_path / "source", text)
    model = tiny_config(
        local_dim=24,
        hash_ngram_sizes=(2, 3, 4, 5),
        patching=PatchingConfig(rule="lookup", lookup_order=2),
        entropy_model=None,
    )
    begun = ByteifyConfig(str(source), frozen=0.5, distill=0.5)
    steps = replace(train, steps=16)
    recipe = Recipe("blt", data, steps, model=model, byteify=begun, target_patch_size=0.0)
    recipe = hooks_of(recipe).resolve(recipe)
    run = tmp_path / "run"
    train_recipe(recipe, run, hooks=hooks_of(recipe))
    found = losses(run)
    assert min(found[4:8]) < found[0]  # the first stage
    assert found[-1] < found[8]

    lm = blt.load(run / "checkpoint")
    assert isinstance(lm, blt.BLT)
    assert lm.config.global_block == BLOCKS[kind]
    lm.save(tmp_path / "again")
    again = blt.load(tmp_path / "again")
    assert again.config == lm.config
    states = zip(again.state_dict().items(), lm.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in states)
    checksums.check(tmp_path / "again")
    ids = blt.encode(b"9 bottles of beer")
    assert torch.equal(again.logits(ids), lm.logits(ids))
    assert len(lm.generate(b"9", max_bytes=5, ignore_eos=True).data) == 5
