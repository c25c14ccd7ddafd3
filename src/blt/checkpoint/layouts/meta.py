"""Meta's layout, as of ``facebook/blt-1b``: the entropy model is a model of its own.

Read from what ``save_pretrained`` of the hub's mixin writes (config.json with "args",
model.safetensors), or from a training's params.json and consolidated.pth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blt.checkpoint.folders import (
    CONFIG,
    FORMAT,
    PATCHING,
    Checkpoint,
    check_layers,
    refuse_unknown,
    skeleton,
)
from blt.checkpoint.layouts import meta_config
from blt.checkpoint.layouts.meta_config import PARAMS
from blt.checkpoint.layouts.names import Mapped, Names, from_theirs, to_theirs
from blt.checkpoint.layouts.ours import check_against, layers_of
from blt.checkpoint.layouts.pickles import read_pth
from blt.errors import UserError, require
from blt.files.configs import from_dict, to_dict
from blt.files.stored import INDEX, WEIGHTS, Stored
from blt.files.tensors import Joined, Rearranged, Tensors
from blt.model.config import Config
from blt.model.language import KINDS
from blt.patching import PatchingConfig

PTH = "consolidated.pth"
INSIDE = "entropy_model"  # folder of the entropy model within that of a BLT
OWN = "entropy_model."  # put before the names of its tensors
NAMES = Names(
    modules={
        "encoder": "local_encoder",
        "decoder": "local_decoder",
        "global_transformer": "global_transformer",
        "entropy_model": "entropy_model",
    },
    layer={
        "attention_norm.weight": ("attention_norm.weight",),
        "attention.qkv.weight": tuple(f"attention.w{x}.weight" for x in "qkv"),
        "attention.out.weight": ("attention.wo.weight",),
        "ff_norm.weight": ("ffn_norm.weight",),
        "ff.gate_up.weight": ("feed_forward.w1.weight", "feed_forward.w3.weight"),
        "ff.down.weight": ("feed_forward.w2.weight",),
    },
    cross_attention={
        "query_norm.weight": ("cross_attn_norm_q.weight",),
        "key_value_norm.weight": ("cross_attn_norm_kv.weight",),
        "query.weight": ("wq.weight",),
        "key_value.weight": ("wk.weight", "wv.weight"),
        "out.weight": ("wo.weight",),
    },
    others={
        "encoder.embedding.byte": "local_encoder.tok_embeddings.weight",
        "encoder.patch_projection.weight": "local_encoder.patch_embedding_projection.weight",
        "global_transformer.projection.weight": (
            "global_transformer.token_embedding_projection.weight"
        ),
        "decoder.patch_projection.weight": "local_decoder.patch_embedding_projection.weight",
        "decoder.norm.weight": "local_decoder.norm.weight",
        "decoder.head.weight": "local_decoder.output.weight",
        "entropy_model.byte": "entropy_model.tok_embeddings.weight",
        "entropy_model.norm.weight": "entropy_model.norm.weight",
        "entropy_model.head.weight": "entropy_model.output.weight",
    },
    table="encoder_hash_tok_embedding.{}.weight",
)
COMPUTED = "rope.freqs_cis"  # some versions stored it


def open_folder(folder: Path, entropy_folder: Path | None = None) -> Checkpoint:
    """A BLT of Meta's with its entropy model, or an entropy model by itself.

    Args:
        entropy_folder: of the entropy model; None: the folder within the BLT's.

    Raises:
        UserError: an option that this library does not have, weights that do not fit, or a BLT
            whose entropy model is missing, or in another layout.
    """
    args, tensors = meta_config.read_args(folder), _weights(folder)
    if meta_config.is_entropy_model(args):
        return _open_entropy_model(folder, args, tensors)
    inner = folder / INSIDE
    if entropy_folder is None and _has_weights(inner):
        entropy_folder = inner
    entropy_args = None
    if entropy_folder is not None:
        entropy_args = _entropy_args(entropy_folder)
        tensors = Joined(tensors, OWN, _weights(entropy_folder))
    # Of the hub's folder only the JSON of its own entropy model is here: that has θ.
    places = [folder, inner] + ([] if entropy_folder is None else [entropy_folder])
    patching = meta_config.read_patching(places, args)
    require(
        entropy_args is not None or not patching.needs_entropies,
        f"{folder}: Meta keeps the entropy model elsewhere; try: blt convert {folder} OUT --to blt "
        "--entropy-model facebook/blt-entropy",
    )
    config = meta_config.read_config(args, entropy_args, patching, tensors, str(folder))
    return Checkpoint(str(folder), "blt", config, _renamed(tensors, "blt", config, str(folder)))


def _open_entropy_model(folder: Path, args: dict[str, Any], tensors: Tensors) -> Checkpoint:
    config = meta_config.read_entropy_config(args, tensors, "", str(folder))
    patching = to_dict(meta_config.read_patching([folder], {}))
    renamed = _renamed(tensors, "byte", config, str(folder))
    return Checkpoint(str(folder), "byte", config, renamed, {PATCHING: patching})


def _entropy_args(folder: Path) -> dict[str, Any]:
    """Arguments of the entropy model beside a BLT of Meta's, which is in Meta's layout too.

    Raises:
        UserError: it is in another layout, or no entropy model.
    """
    args = meta_config.read_args(folder)
    require(
        args.get("format") != FORMAT,
        f"{folder}: is in our own layout, and the entropy model of a BLT of Meta's must be in "
        f"Meta's; try: blt convert {folder} OUT --to meta",
    )
    require(
        meta_config.is_entropy_model(args) and "n_heads" in args,
        f"{folder}: is no entropy model in Meta's layout; name one, such as facebook/blt-entropy",
    )
    return args


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (WEIGHTS, INDEX, PTH))


def _weights(folder: Path) -> Tensors:
    if (folder / PTH).is_file() and not any((folder / x).is_file() for x in (WEIGHTS, INDEX)):
        return read_pth(folder / PTH)
    return Stored(folder)


def _renamed(theirs: Tensors, kind: str, config: Any, where: str) -> Tensors:
    """Their tensors under our names, checked against the config."""
    check_layers(where, theirs, *layers_of(config))
    mapped = mapping(kind, config)
    known = {name for names in mapped.values() for name in names}
    found = {name: spec for name, spec in theirs.specs.items() if not name.endswith(COMPUTED)}
    refuse_unknown(where, found, known)
    tensors = Rearranged(theirs, from_theirs(mapped), where)
    check_against(where, kind, config, tensors)
    return tensors


def mapping(kind: str, config: Any) -> Mapped:
    """Our names → the names there whose rows they hold."""
    ours = skeleton(KINDS[kind][0], config, "").state_dict()
    if kind == "byte":
        mapped = NAMES.mapping((OWN + name for name in ours), tables=0)
        return {
            name.removeprefix(OWN): tuple(x.removeprefix(OWN) for x in theirs)
            for name, theirs in mapped.items()
        }
    return NAMES.mapping(ours, config.hash_functions * len(config.hash_ngram_sizes))


def layout(found: Checkpoint) -> dict[str, tuple[dict[str, Any], Tensors]]:
    """JSON files and tensors to write, by subfolder.

    Raises:
        UserError: a model that Meta's code has no options for.
    """
    where, config = found.where, found.config
    if found.kind not in ("blt", "byte"):
        raise UserError(f"{where}: Meta's layout has no {found.kind} model")
    if found.kind == "byte":
        args = meta_config.write_entropy_args(config, where)
        pieces = to_theirs(mapping(found.kind, config))
        files = {CONFIG: {"args": args}}
        if PATCHING in found.files:  # how it cuts, where it has been told
            patching = from_dict(PatchingConfig, found.files[PATCHING], f"{where}: {PATCHING}")
            patcher = {"patcher_args": meta_config.write_patching(patching, where)}
            files[PARAMS] = {"entropy_model": args, "data": patcher}
        return {"": (files, Rearranged(found.tensors, pieces, where))}
    assert isinstance(config, Config)
    patcher = {"patcher_args": meta_config.write_patching(config.patching, where)}
    args = meta_config.write_args(config, where)
    pieces = to_theirs(mapping(found.kind, config))  # of a rule and layers that Meta's layout has
    main = {name: parts for name, parts in pieces.items() if not name.startswith(OWN)}
    files = {CONFIG: {"args": args}, PARAMS: {"model": args, "data": patcher}}
    written: dict[str, tuple[dict[str, Any], Tensors]] = {
        "": (files, Rearranged(found.tensors, main, where))
    }
    if config.entropy_model is not None:
        args = meta_config.write_entropy_args(config.entropy_model, where)
        files = {CONFIG: {"args": args}, PARAMS: {"entropy_model": args, "data": patcher}}
        own = {name.removeprefix(OWN): pieces[name] for name in pieces if name.startswith(OWN)}
        written[INSIDE] = (files, Rearranged(found.tensors, own, where))
    return written
