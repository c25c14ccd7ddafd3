"""Meta's layout, built here from transformers' weights by other rules than the library's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import blt
from blt.checkpoint.convert import convert
from blt.checkpoint.layouts import meta_config
from blt.checkpoint.pretrained import load_patcher, save_patching
from blt.errors import UserError
from checkpoints import (
    SCALING,
    equal_weights,
    random_config,
    random_model,
    text_ids,
    their_config,
    their_logits,
)

transformers = pytest.importorskip("transformers")

# As transformers' own converter renames, only backwards.
RENAMES = (
    (".self_attn.", ".attention."),
    (".mlp.gate_proj.", ".feed_forward.w1."),
    (".mlp.up_proj.", ".feed_forward.w3."),
    (".mlp.down_proj.", ".feed_forward.w2."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
    (".embed_tokens.", ".tok_embeddings."),
    (".q_norm.", ".cross_attn_norm_q."),
    (".k_norm.", ".cross_attn_norm_kv."),
    *((f".{x}_proj.", f".w{x}.") for x in "qkvo"),
)


def metas_weights(model: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A transformers model's weights under Meta's names: of the BLT, of its entropy model."""
    main, entropy = {}, {}
    config = model.config
    for name, tensor in model.state_dict().items():
        for theirs, metas in RENAMES:
            name = name.replace(theirs, metas)
        if name == "lm_head.weight":
            main["local_decoder.output.weight"] = tensor.clone()
        elif "encoder_hash_tok_embedding" in name:
            for index, table in enumerate(tensor.split(config.encoder_hash_byte_group_vocab)):
                main[f"encoder_hash_tok_embedding.{index}.weight"] = table.clone()
        elif name.startswith("model.patcher."):
            entropy[name.removeprefix("model.patcher.").replace("lm_head", "output")] = tensor
        else:
            main[name.removeprefix("model.")] = tensor.clone()
    return main, entropy


def metas_args(c: blt.Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments as Meta's code dumps them, with what does not matter here among them."""
    assert c.entropy_model is not None
    e = c.entropy_model
    main = {
        "seed": 42,
        "dim": 512,
        "n_layers": 8,
        "n_heads": 8,
        "head_dim": None,
        "vocab_size": 260,
        "weight_tying": False,
        "attn_impl": "xformers",
        "attn_bias_type": "block_causal",
        "dropout": 0.0,
        "multiple_of": 256,
        "ffn_dim_multiplier": 1.0,
        "norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "use_rope": True,
        "patch_in_forward": False,
        "patching_mode": "space",  # data.patcher_args counts
        "dim_token": None,
        "dim_global": c.global_dim,
        "dim_local_decoder": c.local_dim,
        "dim_local_encoder": c.local_dim,
        "n_layers_global": c.global_layers,
        "n_layers_local_decoder": c.decoder_layers,
        "n_layers_local_encoder": c.encoder_layers,
        "n_heads_global": c.global_heads,
        "n_heads_local_decoder": c.local_heads,
        "n_heads_local_encoder": c.local_heads,
        "n_kv_heads": None,
        "n_kv_heads_global": None,
        "use_local_encoder_transformer": True,
        "cross_attn_encoder": True,
        "cross_attn_decoder": True,
        "cross_attn_k": c.cross_attention_k,
        "cross_attn_nheads": c.local_heads,
        "cross_attn_all_layers_decoder": c.decoder_cross_attention == "all",
        "cross_attn_all_layers_encoder": c.encoder_cross_attention == "all",
        "cross_attn_init_by_pooling": True,
        "cross_attn_window_encoder": None,
        "downsampling_by_pooling": "max",
        "encoder_hash_byte_group_size": list(c.hash_ngram_sizes),
        "encoder_hash_byte_group_vocab": c.hash_rows,
        "encoder_hash_byte_group_nb_functions": c.hash_functions,
        "encoder_enable_byte_ngrams": False,
        "local_attention_window_len": c.sliding_window,
        "pm_size": 0,
    }
    entropy = {
        "dim": e.dim,
        "n_layers": e.layers,
        "n_heads": e.heads,
        "n_kv_heads": None,
        "vocab_size": 260,
        "multiple_of": 256,
        "ffn_dim_multiplier": 1.0,
        "max_seqlen": 8192,
        "norm_eps": e.norm_eps,
        "rope_theta": e.rope_theta,
        "sliding_window": e.sliding_window,
    }
    return main, entropy


def patcher_args(config: blt.Config) -> dict[str, Any]:
    return {
        "patching_mode": "entropy",
        "patching_device": "cuda",
        "threshold": config.patching.threshold,
        "threshold_add": None,
        "max_patch_length": None,
        "monotonicity": False,
    }


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_hub(folder: Path, config: blt.Config, model: Any) -> None:
    """As on the hub: two repositories, "args" nested once or twice, sizes of n-grams as text."""
    main, entropy = metas_args(config)
    main["encoder_hash_byte_group_size"] = ",".join(map(str, config.hash_ngram_sizes))
    write_json(folder / "blt/config.json", {"args": main})
    write_json(folder / "entropy/config.json", {"args": {"args": entropy}})
    write_json(folder / "blt/train_args.json", {"data": {"patcher_args": patcher_args(config)}})
    for name, state in zip(("blt", "entropy"), metas_weights(model), strict=True):
        save_file(state, folder / name / "model.safetensors")


def write_consolidated(folder: Path, config: blt.Config, model: Any) -> None:
    """As training leaves it: params.json and consolidated.pth, the entropy model in a folder."""
    main, entropy = metas_args(config)
    data = {"patcher_args": patcher_args(config)}
    write_json(folder / "blt/params.json", {"model": main, "entropy_model": None, "data": data})
    write_json(
        folder / "blt/entropy_model/params.json",
        {"model": None, "entropy_model": entropy, "data": data},
    )
    for name, state in zip(("blt", "blt/entropy_model"), metas_weights(model), strict=True):
        torch.save({"model": state}, folder / name / "consolidated.pth")


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 6])
def test_both_of_metas_ways_give_the_model_that_transformers_has(tmp_path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    made, ids = random_config(seed), text_ids(seed)
    model = transformers.BltForCausalLM(their_config(made)).eval()
    write_hub(tmp_path / "hub", made, model)
    write_consolidated(tmp_path / "run", made, model)
    convert(tmp_path / "hub/blt", tmp_path / "a", entropy_model=tmp_path / "hub/entropy")
    lm = blt.load(tmp_path / "a")
    assert lm.config == made
    expected = their_logits(model, ids)
    assert (lm.logits(ids) - expected).abs().max() <= 1e-4 * expected.abs().max()
    loaded = blt.load(tmp_path / "run/blt")
    assert loaded.config == made
    assert equal_weights(loaded, lm)
    convert(tmp_path / "run/blt", tmp_path / "t", "transformers")
    back = transformers.BltForCausalLM.from_pretrained(tmp_path / "t").eval()
    assert torch.equal(their_logits(back, ids), expected)


@pytest.mark.parametrize("seed", [0, 3, 8])
def test_what_we_write_for_meta_has_its_names_and_comes_back_bit_for_bit(
    tmp_path: Path, seed: int
) -> None:
    made = random_config(seed)
    changes: dict[str, Any] = {
        **vars(made),
        "encoder_ff_dim": wide(made.local_dim),
        "decoder_ff_dim": wide(made.local_dim),
        "global_ff_dim": wide(made.global_dim),
    }
    if made.entropy_model is not None:
        shape = {**vars(made.entropy_model), "ff_dim": wide(made.entropy_model.dim)}
        changes["entropy_model"] = blt.ByteTransformerConfig(**shape)
    lm = random_model(seed, config=blt.Config(**changes))
    lm.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "meta", "meta")
    model = transformers.BltForCausalLM(their_config(lm.config))
    main, entropy = metas_weights(model)
    assert shapes(load_file(tmp_path / "meta/model.safetensors")) == shapes(main)
    inner = tmp_path / "meta/entropy_model/model.safetensors"
    assert inner.is_file() == bool(entropy)
    assert not entropy or shapes(load_file(inner)) == shapes(entropy)
    loaded = blt.load(tmp_path / "meta")
    assert loaded.config == lm.config
    assert equal_weights(loaded, lm)


def wide(dim: int) -> int:
    """8/3 of a width, rounded up to a multiple of 64."""
    return -(-int(8 * dim / 3) // 64) * 64


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_an_entropy_model_of_metas_is_a_byte_model_here(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made, ids = random_config(0), text_ids(0)
    model = transformers.BltForCausalLM(their_config(made)).eval()
    write_hub(tmp_path, made, model)
    convert(tmp_path / "entropy", tmp_path / "ours")
    lm = blt.load(tmp_path / "ours")
    assert isinstance(lm, blt.ByteLM)
    expected = blt.from_transformers(model).patch(ids).entropies
    from blt.model.transformer import entropy

    torch.testing.assert_close(entropy(lm.logits(ids)), expected)
    convert(tmp_path / "ours", tmp_path / "back", "meta")
    assert equal_weights(blt.load(tmp_path / "back"), lm)


def test_how_a_byte_model_cuts_goes_to_meta_and_back_or_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lm = blt.ByteLM(blt.ByteTransformerConfig(dim=16, heads=2, layers=1, ff_dim=wide(16)))
    patching = blt.PatchingConfig(threshold=0.77, max_patch_length=9)
    lm.save(tmp_path / "ours")
    save_patching(tmp_path / "ours", patching)
    convert(tmp_path / "ours", tmp_path / "meta", "meta")
    convert(tmp_path / "meta", tmp_path / "back", "blt")
    assert load_patcher(str(tmp_path / "back")).config == patching
    save_patching(tmp_path / "ours", replace(patching, newline_reset=True))
    with pytest.raises(UserError, match=r"no patching\.newline_reset"):
        convert(tmp_path / "ours", tmp_path / "other", "meta")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"vocab_size": 32000}, "vocab_size 32000"),
        ({"downsampling_by_pooling": "avg"}, "downsampling_by_pooling 'avg'"),
        ({"n_kv_heads": 1}, "n_kv_heads 1"),
        ({"cross_attn_encoder": False}, "cross_attn_encoder False"),
        ({"dim_local_decoder": 8}, "dim_local_decoder 8"),
        ({"local_attention_window_len": None}, "local_attention_window_len"),
        ({"n_layers_global": "many"}, "global_layers"),
        ({"n_layers_global": 4000}, "asks for 4000 layers"),
        ({"n_layers_global": 10**9}, "global_layers must be 1 to"),
        ({"dim_global": 2**62}, "global_dim must be 2 to"),
        ({"encoder_hash_byte_group_size": "3,x"}, "no numbers"),
    ],
)
def test_options_of_metas_that_are_not_here_are_named(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    made = random_config(0)
    write_hub(tmp_path, made, transformers.BltForCausalLM(their_config(made)))
    args = json.loads((tmp_path / "blt/config.json").read_text())["args"]
    write_json(tmp_path / "blt/config.json", {"args": args | changes})
    with pytest.raises(UserError, match=named):
        convert(tmp_path / "blt", tmp_path / "out", entropy_model=tmp_path / "entropy")
    assert not (tmp_path / "out").exists()


def test_without_its_entropy_model_the_way_out_is_named(tmp_path: Path) -> None:
    """Of a download only the JSON of entropy_model/ is there: its weights are a pickle."""
    made = random_config(0)
    write_hub(tmp_path, made, transformers.BltForCausalLM(their_config(made)))
    (tmp_path / "blt/train_args.json").unlink()
    data = {"patcher_args": {**patcher_args(made), "threshold": 1.5}}
    write_json(tmp_path / "blt/entropy_model/params.json", {"entropy_model": {}, "data": data})
    with pytest.raises(UserError, match="--entropy-model facebook/blt-entropy"):
        blt.load(tmp_path / "blt")
    convert(tmp_path / "blt", tmp_path / "out", entropy_model=tmp_path / "entropy")
    config = blt.load(tmp_path / "out").config
    assert config.patching.threshold == 1.5


def test_an_entropy_model_that_is_not_in_metas_layout_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    made = random_config(0)
    write_hub(tmp_path, made, transformers.BltForCausalLM(their_config(made)))
    convert(tmp_path / "entropy", tmp_path / "ours")
    convert(
        tmp_path / "blt", tmp_path / "theirs", "transformers", entropy_model=tmp_path / "entropy"
    )
    for name, said in (
        ("ours", f"is in our own layout, .* blt convert {tmp_path / 'ours'} OUT --to meta"),
        ("theirs", "is no entropy model in Meta's layout"),
        ("blt", "is no entropy model in Meta's layout"),
    ):
        with pytest.raises(UserError, match=f"^{tmp_path / name}: {said}"):
            convert(tmp_path / "blt", tmp_path / "out", entropy_model=tmp_path / name)
        assert not (tmp_path / "out").exists()
    convert(tmp_path / "ours", tmp_path / "again", "meta")  # that way out
    convert(tmp_path / "blt", tmp_path / "out", entropy_model=tmp_path / "again")
    assert blt.load(tmp_path / "out").config.entropy_model == made.entropy_model


@pytest.mark.parametrize("threshold", [None, 1.5])
def test_the_longest_patch_is_read_among_the_models_arguments_too(threshold: float | None) -> None:
    given = {"patching_threshold": threshold, "max_patch_length": 6}
    found = meta_config.read_patching([Path("nowhere")], given)
    assert found.max_patch_length == 6
    assert found.threshold == (threshold or blt.PatchingConfig.threshold)
    assert meta_config.read_patching([Path("nowhere")], {}) == blt.PatchingConfig()


def test_a_rule_without_a_threshold_is_read_as_it_is_or_refused() -> None:
    """Spaces need none; that of a rule which is not here must not become entropy."""
    given = {"patching_mode": "space", "patching_threshold": None, "max_patch_length": 6}
    assert meta_config.read_patching([Path("nowhere")], given).rule == "space"
    with pytest.raises(UserError, match="patching_mode 'bpe' is not supported"):
        meta_config.read_patching([Path("nowhere")], {**given, "patching_mode": "bpe"})


def test_scaled_rope_is_not_written_for_meta(tmp_path: Path) -> None:
    blt.BLT(replace(random_config(0), global_rope_scaling=SCALING)).save(tmp_path / "ours")
    with pytest.raises(UserError, match="no scaled RoPE"):
        convert(tmp_path / "ours", tmp_path / "out", "meta")


def test_feed_forward_widths_that_meta_cannot_say_are_refused(tmp_path: Path) -> None:
    random_model(0).save(tmp_path / "ours")
    with pytest.raises(UserError, match="feed-forward"):
        convert(tmp_path / "ours", tmp_path / "out", "meta")
