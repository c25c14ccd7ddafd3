"""From ``transformers``' ``BltForCausalLM`` to ours: the same weights, only laid out otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blt.errors import UserError
from blt.lm import BLT
from blt.model.config import ByteTransformerConfig, Config
from blt.patching import PatchingConfig
from blt.vocab import VOCAB_SIZE

# (ours, theirs): ours is the rows of theirs, one below the other
LAYER = (
    ("attention_norm.weight", ("input_layernorm.weight",)),
    ("attention.qkv.weight", tuple(f"self_attn.{x}_proj.weight" for x in "qkv")),
    ("attention.out.weight", ("self_attn.o_proj.weight",)),
    ("ff_norm.weight", ("post_attention_layernorm.weight",)),
    ("ff.gate_up.weight", ("mlp.gate_proj.weight", "mlp.up_proj.weight")),
    ("ff.down.weight", ("mlp.down_proj.weight",)),
)
CROSS_ATTENTION = (
    ("query_norm.weight", ("q_norm.weight",)),
    ("key_value_norm.weight", ("k_norm.weight",)),
    ("query.weight", ("q_proj.weight",)),
    ("key_value.weight", ("k_proj.weight", "v_proj.weight")),
    ("out.weight", ("o_proj.weight",)),
)
Mapping = dict[str, tuple[str, ...]]


def from_transformers(hf_model: Any) -> BLT:
    """A BLT with the weights of a ``BltForCausalLM`` and of its patcher, in the same precision.

    Logits equal ``hf_model(ids, use_cache=False).logits`` to rounding.

    Raises:
        UserError: a shape or option that this library does not have; names it.
    """
    config = read_config(hf_model.config)
    theirs = hf_model.state_dict()
    model = BLT(config)
    ours = model.state_dict()
    state = {}
    for name, sources in mapping(config).items():
        state[name] = torch.cat([_tensor(theirs, source) for source in sources])
        if state[name].shape != ours[name].shape:
            raise UserError(
                f"{' + '.join(sources)}: shape {tuple(state[name].shape)} does not fit the "
                f"config's {tuple(ours[name].shape)}"
            )
    model.load_state_dict(state, assign=True)
    if model.entropy_model is not None:
        model.entropy_model.requires_grad_(False)
    return model.eval()


def read_config(hf: Any) -> Config:
    """Our config for a ``BltConfig``.

    Raises:
        UserError: an option that this library does not have; names it.
    """
    encoder, decoder, latent = hf.encoder_config, hf.decoder_config, hf.global_config
    theta, eps = _common([encoder, decoder, latent])
    if (encoder.hidden_size, encoder.num_attention_heads) != (
        decoder.hidden_size,
        decoder.num_attention_heads,
    ):
        raise UserError("encoder_config and decoder_config differ in hidden_size or heads")
    return Config(
        local_dim=encoder.hidden_size,
        local_heads=encoder.num_attention_heads,
        encoder_layers=encoder.num_hidden_layers,
        encoder_ff_dim=encoder.intermediate_size,
        decoder_layers=decoder.num_hidden_layers,
        decoder_ff_dim=decoder.intermediate_size,
        sliding_window=_window(hf.local_attention_window_len, "local_attention_window_len"),
        global_dim=latent.hidden_size,
        global_heads=latent.num_attention_heads,
        global_layers=latent.num_hidden_layers,
        global_ff_dim=latent.intermediate_size,
        cross_attention_k=hf.cross_attn_k,
        encoder_cross_attention="all" if encoder.cross_attn_all_layers else "last",
        decoder_cross_attention="all" if decoder.cross_attn_all_layers else "first",
        hash_ngram_sizes=tuple(hf.encoder_hash_byte_group_size),
        hash_functions=hf.encoder_hash_byte_group_nb_functions,
        hash_rows=hf.encoder_hash_byte_group_vocab,
        rope_theta=theta,
        norm_eps=eps,
        patching=_patching(hf),
        entropy_model=_entropy_model(hf.patcher_config) if hf.patch_in_forward else None,
    )


def _common(parts: list[Any]) -> tuple[float, float]:
    """RoPE θ and norm epsilon, which these parts must share."""
    for part in parts:
        name = type(part).__name__
        if part.num_key_value_heads != part.num_attention_heads:
            raise UserError(
                f"{name}: grouped-query attention (num_key_value_heads) is not supported"
            )
        if part.hidden_act not in ("silu", "swish"):
            raise UserError(f"{name}: hidden_act {part.hidden_act!r} is not supported, only silu")
        if getattr(part, "vocab_size", VOCAB_SIZE) != VOCAB_SIZE:
            raise UserError(
                f"{name}: vocab_size {part.vocab_size} is not supported, only {VOCAB_SIZE}"
            )
        rope_type = part.rope_parameters.get("rope_type", "default")
        if rope_type != "default":
            raise UserError(f"{name}: rope_type {rope_type!r} is not supported, only default")
    thetas = {float(part.rope_parameters["rope_theta"]) for part in parts}
    epsilons = {part.rms_norm_eps for part in parts}
    if len(thetas) > 1 or len(epsilons) > 1:
        raise UserError(f"parts differ in rope_theta {thetas} or rms_norm_eps {epsilons}")
    return thetas.pop(), epsilons.pop()


def _window(window: int | None, name: str) -> int:
    if window is None:
        raise UserError(f"{name}: full attention (None) is not supported; give a number of bytes")
    return window


def _patching(hf: Any) -> PatchingConfig:
    """transformers cuts by entropy, and every byte by itself in any other mode."""
    entropy = hf.patching_mode == "entropy" and hf.patch_in_forward
    return PatchingConfig(
        rule="entropy" if entropy else "byte",
        threshold=hf.patching_threshold,
        max_patch_length=hf.max_patch_length,
    )


def _entropy_model(patcher: Any) -> ByteTransformerConfig:
    theta, eps = _common([patcher])
    return ByteTransformerConfig(
        dim=patcher.hidden_size,
        heads=patcher.num_attention_heads,
        layers=patcher.num_hidden_layers,
        ff_dim=patcher.intermediate_size,
        sliding_window=_window(patcher.sliding_window, "patcher_config.sliding_window"),
        rope_theta=theta,
        norm_eps=eps,
    )


def mapping(config: Config) -> Mapping:
    """Our names → the names there whose rows they hold."""
    names: Mapping = {
        "encoder.embedding.byte": ("model.local_encoder.embed_tokens.weight",),
        "encoder.embedding.ngram": ("model.encoder_hash_tok_embedding.weight",),
        "decoder.norm.weight": ("model.local_decoder.norm.weight",),
        "decoder.head.weight": ("lm_head.weight",),
    }
    for ours, theirs in (("encoder", "local_encoder"), ("decoder", "local_decoder")):
        names[f"{ours}.patch_projection.weight"] = (
            f"model.{theirs}.patch_embedding_projection.weight",
        )
    if config.cross_attention_k * config.local_dim != config.global_dim:
        names["global_transformer.projection.weight"] = (
            "model.global_transformer.token_embedding_projection.weight",
        )
    stacks = [
        ("encoder.transformer.layers", "model.local_encoder.layers", config.encoder_layers),
        ("decoder.transformer.layers", "model.local_decoder.layers", config.decoder_layers),
        (
            "global_transformer.transformer.layers",
            "model.global_transformer.layers",
            config.global_layers,
        ),
    ]
    if config.entropy_model is not None:
        names["entropy_model.byte"] = ("model.patcher.embed_tokens.weight",)
        names["entropy_model.norm.weight"] = ("model.patcher.norm.weight",)
        names["entropy_model.head.weight"] = ("model.patcher.lm_head.weight",)
        stacks.append(
            (
                "entropy_model.transformer.layers",
                "model.patcher.layers",
                config.entropy_model.layers,
            )
        )
    for ours, theirs, count in stacks:
        names |= _stack(ours, theirs, count, LAYER)
    for side, where, layers in (
        ("encoder", config.encoder_cross_attention, config.encoder_layers),
        ("decoder", config.decoder_cross_attention, config.decoder_layers),
    ):
        count = layers if where == "all" else 1
        theirs = f"model.local_{side}.cross_attn_layers"
        names |= _stack(f"{side}.cross_attention", theirs, count, CROSS_ATTENTION)
    return names


def _stack(ours: str, theirs: str, count: int, parts: Any) -> Mapping:
    return {
        f"{ours}.{index}.{name}": tuple(f"{theirs}.{index}.{source}" for source in sources)
        for index in range(count)
        for name, sources in parts
    }


def _tensor(state: dict[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise UserError(f"tensor {name!r} is missing from the transformers model")
    return state[name].detach()
