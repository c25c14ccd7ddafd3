"""Token models of transformers are token models of ours, and ours are Llamas of theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt.checkpoint.convert import convert
from blt.checkpoint.folders import fill
from blt.checkpoint.open import open_token_model
from blt.errors import UserError
from blt.evals.models import load
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.model.packing import Spans
from blt.model.transformer import CausalTransformer
from blt.tokens.tokenizer import ByteTokenizer
from checkpoints import SCALING, rope
from llamas import FAMILIES, close, their_model
from shapes import tiny_config
from texts import MULTILINGUAL

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_a_token_model_of_theirs_is_one_of_ours(tmp_path: Path, seed: int, kind: str) -> None:
    """Equal logits; their folders in one file or in shards, with tied embeddings or not."""
    theirs = their_model(seed, kind)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="9KB" if seed % 2 else "1GB")
    found = open_token_model(tmp_path / "theirs")
    ours = CausalTransformer(found.config)
    fill(ours, found.tensors)
    ids = torch.randint(theirs.config.vocab_size, (70,))
    expected = theirs(input_ids=ids[None]).logits[0]
    assert close(ours(ids, Spans.from_lengths([len(ids)])), expected)


@pytest.fixture(scope="module")
def token_model() -> TokenLM:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=310, dim=24, heads=2, layers=2, ff_dim=40)
    tokenizer = ByteTokenizer.train([MULTILINGUAL], 300)  # fewer tokens than the model has
    return TokenLM(shape, tokenizer).eval()


def test_a_token_model_of_ours_is_a_llama(token_model: TokenLM, tmp_path: Path) -> None:
    token_model.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers", shard_bytes=20_000)
    theirs, report = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "theirs", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    ids = tokenizer(MULTILINGUAL.decode(), return_tensors="pt").input_ids
    assert ids[0].tolist() == token_model.ids_of(MULTILINGUAL).tolist()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (310, 311)
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits[0]
        assert close(token_model.packed_logits([ids[0]]), expected)
    bits = load(tmp_path / "theirs").bits_per_byte(MULTILINGUAL)
    assert bits == pytest.approx(token_model.bits_per_byte(MULTILINGUAL), rel=1e-4)
    found = open_token_model(tmp_path / "theirs")
    assert found.config == token_model.config
    for name, tensor in token_model.state_dict().items():
        assert torch.equal(found.tensors.read(name), tensor), name


def test_a_token_model_of_ours_can_be_copied_but_is_not_metas(
    token_model: TokenLM, tmp_path: Path
) -> None:
    token_model.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "copy")
    copy = blt.load(tmp_path / "copy")
    assert copy.bits_per_byte(MULTILINGUAL) == token_model.bits_per_byte(MULTILINGUAL)
    with pytest.raises(UserError, match="no token model"):
        convert(tmp_path / "ours", tmp_path / "meta", "meta")
    (tmp_path / "ours" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json: missing"):
        convert(tmp_path / "ours", tmp_path / "theirs", "transformers")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in data.items() if v != "absent"}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "qwen2"}, r"self_attn\.q_proj\.bias' is missing"),
        ({"model_type": "qwen3", "head_dim": 16}, r"self_attn\.q_norm\.weight' is missing"),
        ({"model_type": "olmo2"}, "unknown tensor 'model.layers.0.input_layernorm"),
        ({"model_type": "olmo"}, "'olmo' is not supported .its norms subtract the mean"),
        ({"model_type": "olmo3"}, "'olmo3' is not supported .some of its layers see a window"),
        ({"model_type": "gemma3_text"}, "'gemma3_text' .*norms before and after"),
        ({"model_type": "qwen3_moe"}, "'qwen3_moe' .*mixture of experts"),
        ({"model_type": "bert"}, "'bert' is not supported; known: llama, mistral, qwen2"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"head_dim": 32}, r"k_proj.weight' has shape \(32, 32\), config.json asks for \(64, 32\)"),
        ({"head_dim": 15}, "head_dim must be even"),
        ({"head_dim": "wide"}, "head_dim must be a whole number"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
        ({"num_key_value_heads": "two"}, "num_key_value_heads must be a whole number"),
        ({"sliding_window": 64}, "sliding_window 64 is smaller than the context"),
        (
            {
                "model_type": "qwen2",
                "use_sliding_window": True,
                "sliding_window": 64,
                "max_window_layers": 1,
            },
            "sliding_window 64 is smaller than the context",
        ),
        (
            {"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]},
            "sliding_window 64 is smaller",
        ),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "layer_types 'chunked_att"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.*[Ff]ield req"),
        (
            {"rope_scaling": rope(1e4, SCALING) | {"factor": 0}},
            "factor must be 0.001 to 1000000.0, got 0",
        ),
        ({"rope_scaling": rope(1e4, SCALING) | {"low_freq_factor": 4.0}}, "must be below high"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "RoPE scaling 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "RoPE scaling 'yarn'"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": "absent"}, "hidden_size must be a whole number, got None"),
        ({"hidden_size": 34, "head_dim": "absent"}, "17"),
        (
            {"hidden_size": 64, "head_dim": "absent"},
            r"k_proj.weight' has shape \(32, 32\), config.json asks for \(64, 64\)",
        ),
        ({"intermediate_size": 50}, r"gate_proj.*has shape \(96, 32\)"),
        ({"num_hidden_layers": 3}, r"layers\.2\..* is missing"),
        ({"num_hidden_layers": 1}, r"unknown tensor 'model\.layers\.1"),
        ({"num_hidden_layers": 4000}, "asks for 4000 layers"),
        ({"vocab_size": 60}, "embed_tokens"),
    ],
)
def test_layers_that_are_not_ours_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    theirs = their_model(0, "llama", **SIZES, num_attention_heads=2, num_key_value_heads=2)
    theirs.save_pretrained(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(UserError, match=named) as error:
        open_token_model(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    their_model(0, "llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="is a pickle"):
        open_token_model(tmp_path)


def test_a_byte_model_is_no_source(tmp_path: Path) -> None:
    blt.BLT(tiny_config()).save(tmp_path / "blt")
    with pytest.raises(UserError, match="is a blt model; name a token model"):
        open_token_model(tmp_path / "blt")
