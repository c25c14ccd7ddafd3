"""Meta's arguments of a BLT and of an entropy model, and our configs: both ways.

Widths of feed-forward layers, which Meta derives from other arguments, are read off the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blt.checkpoint.folders import CONFIG
from blt.errors import UserError, require
from blt.files.configs import from_dict
from blt.files.strict_json import read_object
from blt.files.tensors import Tensors
from blt.model.config import ByteTransformerConfig, Config
from blt.patching import PatchingConfig
from blt.vocab import VOCAB_SIZE

PARAMS, TRAIN_ARGS = "params.json", "train_args.json"
# The only values that this library has; an absent key means the same.
ONLY: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "use_rope": True,
    "pm_size": 0,
    "use_local_encoder_transformer": True,
    "cross_attn_encoder": True,
    "cross_attn_decoder": True,
    "cross_attn_init_by_pooling": True,
    "downsampling_by_pooling": "max",
    "encoder_enable_byte_ngrams": False,
}
SHARED: dict[str, Any] = {"rope_theta": 10000.0, "norm_eps": 1e-5}  # Meta's defaults
MULTIPLES = (256, 128, 64, 32, 16, 8, 4, 2, 1)


def read_args(folder: Path) -> dict[str, Any]:
    """Arguments of the model in a folder.

    Raises:
        UserError: there are none, or a damaged file.
    """
    if (folder / CONFIG).is_file():
        args = read_object(folder / CONFIG)
        while isinstance(args.get("args"), dict):  # the hub's mixin nests them once or twice
            args = args["args"]
        return args
    require((folder / PARAMS).is_file(), f"{folder}: neither {CONFIG} nor {PARAMS} is here")
    run = read_object(folder / PARAMS)
    key = "model" if _has_globals(run.get("model")) else "entropy_model"
    found = run.get(key)
    if not isinstance(found, dict):
        raise UserError(f"{folder / PARAMS}: has no 'model' and no 'entropy_model'")
    return found


def _has_globals(args: Any) -> bool:
    return isinstance(args, dict) and "dim_global" in args


def is_entropy_model(args: dict[str, Any]) -> bool:
    """Are these arguments of an entropy model, or of a BLT?"""
    return not _has_globals(args)


def read_patching(folders: Sequence[Path], args: dict[str, Any]) -> PatchingConfig:
    """The rule and θ, from where Meta keeps them: training's arguments, or else the model's.

    Raises:
        UserError: a rule that this library does not have.
    """
    where = str(folders[0])
    found: Any = {
        key.removeprefix("patching_"): args[key]
        for key in ("patching_mode", "patching_threshold", "patching_threshold_add", "monotonicity")
        if key in args
    }
    if args.get("patching_threshold") is None and args.get("patching_mode") is None:
        found = {}  # nobody has said how it cuts
    found["max_patch_length"] = args.get("max_patch_length")
    for path in (folder / name for folder in folders for name in (PARAMS, TRAIN_ARGS)):
        data = read_object(path).get("data") if path.is_file() else None
        if isinstance(data, dict) and isinstance(data.get("patcher_args"), dict):
            where, found = str(path), data["patcher_args"]
            break
    mode = found.get("patching_mode", found.get("mode", "entropy"))
    require(
        mode in ("entropy", "space", "byte"),
        f"{where}: patching_mode {mode!r} is not supported, only entropy, space and byte",
    )
    add = found.get("threshold_add")
    if mode == "entropy" and found.get("monotonicity"):
        mode = "entropy-monotonic"
    elif mode == "entropy" and add is not None:
        mode = "entropy-combined"
    threshold = found.get("threshold")
    plain = {
        "rule": mode,
        "threshold": PatchingConfig.threshold if threshold is None else threshold,
        "threshold_add": 0.0 if add is None else add,
        "max_patch_length": found.get("max_patch_length"),
    }
    return from_dict(PatchingConfig, plain, where)


def write_patching(patching: PatchingConfig, where: str) -> dict[str, Any]:
    """Meta's ``patcher_args``.

    Raises:
        UserError: a rule that Meta's code does not have.
    """
    rule = patching.rule
    known = rule in ("space", "byte") or patching.needs_entropies
    require(known, f"{where}: Meta's layout has no patching rule {rule!r}; keep it in ours")
    require(not patching.newline_reset, f"{where}: Meta's layout has no patching.newline_reset")
    return {
        "patching_mode": "entropy" if patching.needs_entropies else rule,
        "threshold": patching.threshold,
        "threshold_add": patching.threshold_add if rule == "entropy-combined" else None,
        "monotonicity": rule == "entropy-monotonic",
        "max_patch_length": patching.max_patch_length,
    }


def read_config(
    args: dict[str, Any],
    entropy_args: dict[str, Any] | None,
    patching: PatchingConfig,
    tensors: Tensors,
    where: str,
) -> Config:
    """Our config for the arguments of a BLT and of its entropy model.

    Raises:
        UserError: an option that this library does not have, a missing or a wrong value.
    """
    _refuse_others(args, where)
    dim, heads = (
        _need(args, "dim_local_encoder", where),
        _need(args, "n_heads_local_encoder", where),
    )
    for key, value in (
        ("dim_local_decoder", dim),
        ("n_heads_local_decoder", heads),
        ("cross_attn_nheads", heads),
        ("n_kv_heads", heads),
        ("n_kv_heads_global", args.get("n_heads_global")),
        ("dim_token", dim),
        ("cross_attn_window_encoder", None),
        ("cross_attn_window_decoder", None),
    ):
        found = args.get(key)
        require(
            found is None or found == value,
            f"{where}: {key} {found!r} is not supported here, only {value!r}",
        )
    entropy_model = None
    if entropy_args is not None:
        entropy_model = read_entropy_config(entropy_args, tensors, "entropy_model.", where)
    plain = {
        "local_dim": dim,
        "local_heads": heads,
        "encoder_layers": _need(args, "n_layers_local_encoder", where),
        "encoder_ff_dim": _ff_dim(tensors, "local_encoder.", where),
        "decoder_layers": _need(args, "n_layers_local_decoder", where),
        "decoder_ff_dim": _ff_dim(tensors, "local_decoder.", where),
        "sliding_window": _need(args, "local_attention_window_len", where),
        "global_dim": _need(args, "dim_global", where),
        "global_heads": _need(args, "n_heads_global", where),
        "global_layers": _need(args, "n_layers_global", where),
        "global_ff_dim": _ff_dim(tensors, "global_transformer.", where),
        "cross_attention_k": _need(args, "cross_attn_k", where),
        "encoder_cross_attention": "all" if args.get("cross_attn_all_layers_encoder") else "last",
        "decoder_cross_attention": "all" if args.get("cross_attn_all_layers_decoder") else "first",
        "hash_ngram_sizes": _sizes(_need(args, "encoder_hash_byte_group_size", where), where),
        "hash_functions": _need(args, "encoder_hash_byte_group_nb_functions", where),
        "hash_rows": _need(args, "encoder_hash_byte_group_vocab", where),
        **_shared(args),
    }
    config = from_dict(
        Config, {**plain, "patching": {"rule": "byte"}, "entropy_model": None}, where
    )
    return Config(**{**vars(config), "patching": patching, "entropy_model": entropy_model})


def read_entropy_config(
    args: dict[str, Any], tensors: Tensors, prefix: str, where: str
) -> ByteTransformerConfig:
    """Our config for the arguments of an entropy model, whose tensors have this prefix.

    Raises:
        UserError: an option that this library does not have, a missing or a wrong value.
    """
    where = f"{where}: entropy model"
    heads, vocab_size = _need(args, "n_heads", where), args.get("vocab_size", VOCAB_SIZE)
    require(
        args.get("n_kv_heads") in (None, heads),
        f"{where}: grouped-query attention (n_kv_heads) is not supported",
    )
    require(vocab_size == VOCAB_SIZE, f"{where}: vocab_size {vocab_size!r}, only {VOCAB_SIZE}")
    plain = {
        "dim": _need(args, "dim", where),
        "heads": heads,
        "layers": _need(args, "n_layers", where),
        "ff_dim": _ff_dim(tensors, prefix, where),
        "sliding_window": args.get("sliding_window") or 512,  # Meta always loads it with 512
        **_shared(args),
    }
    return from_dict(ByteTransformerConfig, plain, where)


def _refuse_others(args: dict[str, Any], where: str) -> None:
    for key, value in ONLY.items():
        found = args.get(key, value)
        require(found == value, f"{where}: {key} {found!r} is not supported, only {value!r}")


def _need(args: dict[str, Any], key: str, where: str) -> Any:
    require(args.get(key) is not None, f"{where}: the config has no {key!r}")
    return args[key]


def _shared(args: dict[str, Any]) -> dict[str, Any]:
    return {key: args.get(key, default) for key, default in SHARED.items()}


def _ff_dim(tensors: Tensors, prefix: str, where: str) -> int:
    name = f"{prefix}layers.0.feed_forward.w1.weight"
    require(name in tensors.specs, f"{where}: tensor {name!r} is missing; does the config belong?")
    return tensors.specs[name].shape[0]


def _sizes(given: Any, where: str) -> Any:
    """A list of n-gram sizes, or such a list as text: "3,4,5"."""
    if not isinstance(given, str):
        return given
    try:
        return [int(size) for size in given.split(",") if size]
    except ValueError:
        raise UserError(f"{where}: encoder_hash_byte_group_size {given!r}: no numbers") from None


def write_args(config: Config, where: str) -> dict[str, Any]:
    """Meta's arguments of a BLT.

    Raises:
        UserError: a shape that they cannot describe.
    """
    c = config
    crossed, hashed = bool(c.encoder_crosses and c.decoder_crosses), bool(c.hash_ngram_sizes)
    require(crossed, f"{where}: Meta's layout has no model without cross-attention here")
    require(hashed, f"{where}: Meta's layout has no model without hash n-gram embeddings here")
    require(c.global_rope_scaling is None, f"{where}: Meta's layout has no scaled RoPE here")
    unlike = c.global_block.unlike_llama()
    require(unlike is None, f"{where}: Meta's layout has no global_block.{unlike} here")
    widths = {
        c.local_dim: {c.encoder_ff_dim, c.decoder_ff_dim},
        c.global_dim: {c.global_ff_dim},
    }
    if c.local_dim == c.global_dim:
        widths = {c.local_dim: {c.encoder_ff_dim, c.decoder_ff_dim, c.global_ff_dim}}
    return {
        **ONLY,
        "rope_theta": c.rope_theta,
        "norm_eps": c.norm_eps,
        "multiple_of": _multiple_of(widths, where),
        "ffn_dim_multiplier": 1.0,
        "dim_local_encoder": c.local_dim,
        "dim_local_decoder": c.local_dim,
        "dim_global": c.global_dim,
        "n_heads_local_encoder": c.local_heads,
        "n_heads_local_decoder": c.local_heads,
        "n_heads_global": c.global_heads,
        "n_layers_local_encoder": c.encoder_layers,
        "n_layers_local_decoder": c.decoder_layers,
        "n_layers_global": c.global_layers,
        "local_attention_window_len": c.sliding_window,
        "cross_attn_k": c.cross_attention_k,
        "cross_attn_nheads": c.local_heads,
        "cross_attn_all_layers_encoder": c.encoder_cross_attention == "all",
        "cross_attn_all_layers_decoder": c.decoder_cross_attention == "all",
        "encoder_hash_byte_group_size": list(c.hash_ngram_sizes),
        "encoder_hash_byte_group_nb_functions": c.hash_functions,
        "encoder_hash_byte_group_vocab": c.hash_rows,
    }


def write_entropy_args(config: ByteTransformerConfig, where: str) -> dict[str, Any]:
    """Meta's arguments of an entropy model.

    Raises:
        UserError: a shape that they cannot describe.
    """
    return {
        "vocab_size": VOCAB_SIZE,
        "dim": config.dim,
        "n_heads": config.heads,
        "n_layers": config.layers,
        "sliding_window": config.sliding_window,
        "rope_theta": config.rope_theta,
        "norm_eps": config.norm_eps,
        "multiple_of": _multiple_of({config.dim: {config.ff_dim}}, where),
        "ffn_dim_multiplier": 1.0,
    }


def _multiple_of(widths: dict[int, set[int]], where: str) -> int:
    """What Meta rounds 8/3 of each width up to a multiple of, to have its feed-forward width."""
    for multiple in MULTIPLES:
        if all({-(-int(8 * dim / 3) // multiple) * multiple} == ff for dim, ff in widths.items()):
            return multiple
    told = ", ".join(f"{dim}: {sorted(ff)}" for dim, ff in widths.items())
    raise UserError(
        f"{where}: Meta's layout derives feed-forward widths from 8/3 of a width, rounded up to "
        f"one multiple for all; no multiple gives these ({told})"
    )
