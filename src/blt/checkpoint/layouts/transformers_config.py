"""``transformers``' ``BltConfig``, as its config.json has it, and our config: both ways."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from blt.errors import UserError, require
from blt.files.configs import from_dict, to_dict
from blt.model.config import ByteTransformerConfig, Config, RopeScaling
from blt.patching import PatchingConfig
from blt.vocab import BOS, EOS, VOCAB_SIZE

# What an absent key means, where that is not the same in all parts.
PARTS: dict[str, dict[str, Any]] = {
    "encoder_config": {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 1},
    "decoder_config": {
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 9,
        "intermediate_size": 2816,
        "cross_attn_all_layers": True,
    },
    "global_config": {
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_hidden_layers": 25,
        "intermediate_size": 5632,
    },
    "patcher_config": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 14,
        "intermediate_size": 2048,
        "sliding_window": 512,
        "rope_theta": 10000.0,
    },
}


def read_config(data: dict[str, Any], where: str) -> Config:
    """Our config for that of a ``BltConfig``, as in its config.json.

    Raises:
        UserError: an option that this library does not have, or a wrong type; names it.
    """
    parts = {name: _part(data, name, where) for name in PARTS}
    encoder, decoder, latent, patcher = parts.values()
    theta, eps = _common(parts, ["encoder_config", "decoder_config", "global_config"], where)
    for key in ("hidden_size", "num_attention_heads"):
        require(
            encoder[key] == decoder[key],
            f"{where}: encoder_config and decoder_config differ in {key}",
        )
    patched = data.get("patch_in_forward", True) is not False
    rule = "entropy" if patched and data.get("patching_mode", "entropy") == "entropy" else "byte"
    entropy_model = None
    if patched:
        entropy_theta, entropy_eps = _common(parts, ["patcher_config"], where)
        entropy_model = {
            "dim": patcher["hidden_size"],
            "heads": patcher["num_attention_heads"],
            "layers": patcher["num_hidden_layers"],
            "ff_dim": patcher["intermediate_size"],
            "sliding_window": _window(patcher, "sliding_window", f"{where}: patcher_config"),
            "rope_theta": entropy_theta,
            "norm_eps": entropy_eps,
        }
    plain = {
        "local_dim": encoder["hidden_size"],
        "local_heads": encoder["num_attention_heads"],
        "encoder_layers": encoder["num_hidden_layers"],
        "encoder_ff_dim": encoder["intermediate_size"],
        "decoder_layers": decoder["num_hidden_layers"],
        "decoder_ff_dim": decoder["intermediate_size"],
        "sliding_window": _window(data, "local_attention_window_len", where),
        "global_dim": latent["hidden_size"],
        "global_heads": latent["num_attention_heads"],
        "global_layers": latent["num_hidden_layers"],
        "global_ff_dim": latent["intermediate_size"],
        "global_block": {"kv_heads": _shared_heads(latent)},
        "cross_attention_k": data.get("cross_attn_k", 2),
        "encoder_cross_attention": "all" if encoder["cross_attn_all_layers"] else "last",
        "decoder_cross_attention": "all" if decoder["cross_attn_all_layers"] else "first",
        "hash_ngram_sizes": data.get("encoder_hash_byte_group_size") or [3, 4, 5, 6, 7, 8],
        "hash_functions": data.get("encoder_hash_byte_group_nb_functions", 1),
        "hash_rows": data.get("encoder_hash_byte_group_vocab", 500002),
        "rope_theta": theta,
        "global_rope_scaling": latent["rope_scaling"],
        "norm_eps": eps,
        "patching": {
            "rule": rule,
            "threshold": data.get("patching_threshold", PatchingConfig.threshold),
            "max_patch_length": data.get("max_patch_length"),
        },
        "entropy_model": entropy_model,
    }
    return from_dict(Config, plain, where)


def _shared_heads(part: dict[str, Any]) -> Any:
    """Heads of keys and values; None: as many as of queries."""
    count = part["num_key_value_heads"]
    return None if count == part["num_attention_heads"] else count


def _part(data: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """One part's config, with what an absent or empty key means filled in."""
    given = data.get(name) or {}
    if not isinstance(given, dict):
        raise UserError(f"{where}: {name} must be an object, got {given!r}")
    part: dict[str, Any] = {
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "vocab_size": VOCAB_SIZE,
        "cross_attn_all_layers": False,
        **PARTS[name],
        **given,
    }
    part["rope_theta"], part["rope_scaling"] = rope_of(part, f"{where}: {name}")
    require(
        part["rope_scaling"] is None or name == "global_config",
        f"{where}: {name}: scaled RoPE is supported in global_config alone",
    )
    if part.get("intermediate_size") is None and isinstance(part["hidden_size"], int):
        part["intermediate_size"] = int(8 * part["hidden_size"] / 3)
    if part.get("num_key_value_heads") is None:
        part["num_key_value_heads"] = part["num_attention_heads"]
    return part


def rope_of(part: dict[str, Any], where: str) -> tuple[Any, dict[str, Any] | None]:
    """θ and scaling of a config's rotations, in the keys of new and of old versions.

    Raises:
        UserError: a kind of scaling that this library does not have.
    """
    found = {key: part.get(key) or {} for key in ("rope_parameters", "rope_scaling")}
    for key, value in found.items():
        if not isinstance(value, dict):
            raise UserError(f"{where}: {key} must be an object, got {value!r}")
    rope = found["rope_parameters"]
    scaling = found["rope_scaling"] or rope
    rope_type = scaling.get("rope_type", scaling.get("type", "default"))
    require(
        rope_type in ("default", "llama3"),
        f"{where}: RoPE scaling {rope_type!r} is not supported, only llama3's",
    )
    theta = rope.get("rope_theta", part["rope_theta"])
    if rope_type == "default":
        return theta, None
    known = {field.name for field in fields(RopeScaling)}
    return theta, {key: value for key, value in scaling.items() if key in known}


def rope_keys(theta: float, scaling: RopeScaling | None = None) -> dict[str, Any]:
    """What a config of ``transformers`` says of rotations."""
    if scaling is None:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    return {
        "rope_parameters": {"rope_type": "llama3", "rope_theta": theta, **to_dict(scaling)},
        # The context that rotations were slowed for, which transformers compares with.
        "max_position_embeddings": int(scaling.factor * scaling.original_max_position_embeddings),
    }


def _common(parts: dict[str, dict[str, Any]], names: list[str], where: str) -> tuple[Any, Any]:
    """RoPE θ and norm epsilon, which these parts must share, and what all of them must be."""
    only = {"hidden_act": "silu", "vocab_size": VOCAB_SIZE}
    for name in names:
        part = parts[name]
        require(
            name == "global_config" or _shared_heads(part) is None,
            f"{where}: {name}: grouped-query attention (num_key_value_heads) is not supported",
        )
        for key, value in only.items():
            require(
                part[key] == value,
                f"{where}: {name}: {key} {part[key]!r} is not supported, only {value}",
            )
    first = parts[names[0]]
    for key in ("rope_theta", "rms_norm_eps"):
        values = [parts[name][key] for name in names]
        require(
            all(value == first[key] for value in values),
            f"{where}: parts differ in {key}: {', '.join(map(str, values))}",
        )
    return first["rope_theta"], first["rms_norm_eps"]


def _window(part: dict[str, Any], key: str, where: str) -> Any:
    window = part.get(key, 512)
    require(
        window is not None,
        f"{where}: {key}: full attention (None) is not supported; give a number of bytes",
    )
    return window


def write_config(config: Config, where: str) -> dict[str, Any]:
    """The config.json of a ``BltConfig`` for our config.

    Raises:
        UserError: an option that ``transformers`` does not have; names it.
    """
    c, rule, shared = config, config.patching.rule, config.global_block.kv_heads
    unlike = replace(config.global_block, kv_heads=None).unlike_llama()
    for holds, what in (
        (rule in ("entropy", "byte"), f"patching rule {rule!r}"),
        (not c.patching.newline_reset, "patching.newline_reset"),
        (c.encoder_crosses and c.decoder_crosses, "a model without cross-attention"),
        (c.hash_ngram_sizes, "a model without hash n-gram embeddings"),
        (unlike is None, f"global_block.{unlike}"),
    ):
        require(bool(holds), f"{where}: transformers has no {what}; keep it in ours")
    local = {
        "hidden_size": c.local_dim,
        "num_attention_heads": c.local_heads,
        "hidden_size_global": c.global_dim,
        "cross_attn_k": c.cross_attention_k,
    }
    parts: dict[str, dict[str, Any]] = {
        "encoder_config": {
            **local,
            "num_hidden_layers": c.encoder_layers,
            "intermediate_size": c.encoder_ff_dim,
            "cross_attn_all_layers": c.encoder_cross_attention == "all",
        },
        "decoder_config": {
            **local,
            "num_hidden_layers": c.decoder_layers,
            "intermediate_size": c.decoder_ff_dim,
            "cross_attn_all_layers": c.decoder_cross_attention == "all",
        },
        "global_config": {
            "hidden_size": c.global_dim,
            "num_attention_heads": c.global_heads,
            "num_hidden_layers": c.global_layers,
            "intermediate_size": c.global_ff_dim,
            **({} if shared is None else {"num_key_value_heads": shared}),
        },
    }
    for part in parts.values():
        part |= _shared(c.rope_theta, c.norm_eps)
    parts["global_config"] |= rope_keys(c.rope_theta, c.global_rope_scaling)
    if c.entropy_model is not None:
        parts["patcher_config"] = _write_patcher(c.entropy_model)
    return {
        "architectures": ["BltForCausalLM"],
        "model_type": "blt",
        "vocab_size": VOCAB_SIZE,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
        "patch_in_forward": c.entropy_model is not None,
        "patching_mode": rule,
        "patching_threshold": c.patching.threshold,
        "max_patch_length": c.patching.max_patch_length,
        "local_attention_window_len": c.sliding_window,
        "cross_attn_k": c.cross_attention_k,
        "encoder_hash_byte_group_size": list(c.hash_ngram_sizes),
        "encoder_hash_byte_group_vocab": c.hash_rows,
        "encoder_hash_byte_group_nb_functions": c.hash_functions,
        **rope_keys(c.rope_theta),
        **parts,
    }


def _write_patcher(config: ByteTransformerConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.dim,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "intermediate_size": config.ff_dim,
        "sliding_window": config.sliding_window,
        **_shared(config.rope_theta, config.norm_eps),
    }


def _shared(theta: float, eps: float) -> dict[str, Any]:
    return {**rope_keys(theta), "rms_norm_eps": eps}
