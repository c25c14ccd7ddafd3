"""The model that a training begins from, with what the recipe changes in it, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from blt.checkpoint import origin
from blt.checkpoint.folders import INIT, PATCHING
from blt.checkpoint.open import open_layout
from blt.checkpoint.pretrained import PRETRAINED, identity, read_patching, shipped
from blt.data.text import Source, heldout_by_source
from blt.errors import UserError
from blt.files import durable
from blt.files.configs import from_dict, to_dict
from blt.files.int8 import types_in_files
from blt.files.strict_json import read_object
from blt.lm import BLT, ByteLM, LanguageModel, TokenLM, load
from blt.machine.precision import choose_device, choose_dtype
from blt.model.config import Config
from blt.model.transformer import CausalTransformer
from blt.patching import PatchingConfig
from blt.scoring.bits import bits_per_byte
from blt.texts.pieces import choose
from blt.train.build import OnPrepare, build_blt, calibrated, find_tokenizer, with_table
from blt.train.hooks import Hooks
from blt.train.inherit import (
    SECTIONS,
    SHIPPED,
    TABLES,
    flat,
    init_folder,
    open_init,
    refuse_contradictions,
)
from blt.train.recipe import Recipe
from blt.train.run import RunFolder
from blt.train.take import take_tables, take_tokens, take_weights

Say = Callable[[str], None]  # a line for whoever watches


@dataclass
class Beginning:
    """A model on its way from what it was to what the recipe makes of it.

    Attributes:
        name: of the folder, as the recipe has it.
        model: with float32 weights, on the device to train on.
        stored: precision of the weights where they came from.
        weights: their fingerprint; None: of none.
        patching: rule and θ of a byte model; None: another kind.
        notes: how tables, tokens and modules that are not as they were begin, by their key.
    """

    name: str
    model: LanguageModel
    stored: str
    weights: str | None = None
    patching: PatchingConfig | None = None
    notes: dict[str, str] = field(default_factory=dict)


def with_shape_of_init(recipe: Recipe) -> Recipe:
    """A recipe with the shape of the model that it begins from, if it does from one.

    Raises:
        UserError: no such model, of another kind, or of a shape that the recipe contradicts.
    """
    if recipe.init is None:
        return recipe
    found, section = open_init(recipe.init, recipe.kind), SECTIONS[recipe.kind]
    given = getattr(recipe, section)
    if given is None:
        return replace(recipe, **{section: found.config})
    plain = to_dict(recipe, keep_none=False)
    shape = to_dict(found.config, keep_none=False)
    refuse_contradictions(shape, plain[section], recipe.kind, recipe.init, plain)
    return recipe


def begin(recipe: Recipe) -> Beginning:
    """The model that ``recipe`` begins from, as it is.

    Raises:
        UserError: it cannot be loaded, or is not one that can be trained.
    """
    assert recipe.init is not None
    if recipe.init == PRETRAINED:
        with shipped(SHIPPED[recipe.kind]) as folder:
            return _loaded(recipe.init, folder, recipe)
    return _loaded(recipe.init, init_folder(recipe.init), recipe)


def _loaded(name: str, folder: Path, recipe: Recipe) -> Beginning:
    model, stored = load(folder), types_in_files(open_layout(folder).tensors)
    patching = read_patching(folder / PATCHING) if recipe.kind == "byte" else None
    model = model.float().to(choose_device(recipe.train.device))
    if isinstance(model, BLT) and model.entropy_model is not None:
        model.entropy_model.requires_grad_(False)  # it only cuts
    return Beginning(name, model, stored, origin.fingerprint(folder), patching)


def begun_model(
    beginning: Beginning,
    recipe: Recipe,
    run: RunFolder,
    sources: Sequence[Source],
    entropy_model: CausalTransformer | None,
    on_prepare: OnPrepare | None = None,
    say: Say | None = None,
) -> LanguageModel:
    """The model to train: as it was but for what the recipe changes on purpose.

    What differs, and the held-out bits per byte before and after, go to ``init.json`` in the run
    folder, and in lines to ``say``. The file goes wherever the model goes, so it has the other
    model's name and the SHA-256 of its weights, not where it lies here.

    Args:
        entropy_model: another one that the recipe names; None: the model's own.
    """
    torch.manual_seed(recipe.seed)  # the training draws as one from random weights does
    was = _measured(beginning.model, recipe, sources)
    before = _values(beginning, recipe)
    model = _changed(beginning, recipe, sources, entropy_model, on_prepare)
    after = _values(replace(beginning, model=model), recipe)
    if before.get("entropy_model") != after.get("entropy_model"):
        named = (beginning.name, recipe.entropy_model)
        before["entropy_model"], after["entropy_model"] = (x and origin.shown(x) for x in named)
    heldout = {"as_it_was": was}
    changed = _differences(before, after, beginning.notes, SECTIONS[recipe.kind])
    if changed:
        heldout["as_changed"] = _measured(model, recipe, sources)
    found: dict[str, Any] = {
        "init": origin.shown(beginning.name),
        "weights_sha256": beginning.weights,
        "kind": recipe.kind,
        "stored_as": beginning.stored,
        "heldout": heldout,
        "changed": changed,
    }
    if beginning.patching is not None:
        found["patching"] = to_dict(beginning.patching)
    if run.parallel.main:
        durable.write_json(run.path / INIT, found, indent=2)
        for line in _lines(found, beginning.name):
            if say is not None:
                say(line)
    return model


def patching_of_init(run: RunFolder) -> PatchingConfig:
    """Rule and θ of the byte model that a run began from; the defaults where it began anew."""
    found = (begun_of(run) or {}).get("patching")
    where = str(run.path / INIT)
    return from_dict(PatchingConfig, found, where) if found else PatchingConfig()


def begun_of(run: RunFolder) -> dict[str, Any] | None:
    """What its init.json says of the model that a run began from; None where it began anew."""
    path = run.path / INIT
    return read_object(path) if path.is_file() else None


def _changed(
    beginning: Beginning,
    recipe: Recipe,
    sources: Sequence[Source],
    entropy_model: CausalTransformer | None,
    on_prepare: OnPrepare | None,
) -> LanguageModel:
    """What the recipe makes of it; the very same model where it asks for nothing else."""
    old = beginning.model
    if isinstance(old, BLT):
        return _changed_blt(beginning, old, recipe, sources, entropy_model, on_prepare)
    if isinstance(old, TokenLM):
        return _changed_tokens(beginning, old, recipe)
    assert recipe.byte_model is not None
    if recipe.byte_model == old.config:
        return old
    new = ByteLM(recipe.byte_model).to(old.device)
    beginning.notes |= take_weights(old, new) | take_tables(old, new)
    return new


def _changed_tokens(beginning: Beginning, old: TokenLM, recipe: Recipe) -> TokenLM:
    wanted = recipe.token_model
    assert wanted is not None
    tokenizer = find_tokenizer(recipe) if recipe.tokenizer else None
    if tokenizer is not None and tokenizer.json == old.tokenizer.json:
        tokenizer = None
    if wanted == old.config and tokenizer is None:
        return old
    new = TokenLM(wanted, tokenizer or old.tokenizer).to(old.device)
    beginning.notes |= take_weights(old, new)
    of_tokens = {}
    if tokenizer is not None or wanted.vocab_size != old.config.vocab_size:
        of_tokens = take_tokens(old, new)  # before the tables, whose rows it may empty
    beginning.notes |= take_tables(old, new) | of_tokens
    return new


def _changed_blt(
    beginning: Beginning,
    old: BLT,
    recipe: Recipe,
    sources: Sequence[Source],
    entropy_model: CausalTransformer | None,
    on_prepare: OnPrepare | None,
) -> BLT:
    config = recipe.model
    assert config is not None
    cuts = entropy_model
    if cuts is None and isinstance(old.entropy_model, CausalTransformer):
        cuts = old.entropy_model
    if cuts is not None:
        cuts.to(old.device)
    if recipe.learns_table:
        new = with_table(recipe, config, cuts, sources, on_prepare, Hooks())
    elif config.patching.rule == "lookup" and old.lookup_table is None:
        raise UserError(
            "target_patch_size: a table is learned to cut patches of that size, and "
            f"{beginning.name} has none; give 1 or more"
        )
    else:
        patching = config.patching
        if cuts is not None:
            patching = calibrated(recipe, patching, cuts, sources, on_prepare)
        config = replace(config, patching=patching)
        same = _same_modules(old.config.patching, patching) and _same_shape(old.config, config)
        if entropy_model is None and same:
            old.config = config
            return old
        new = build_blt(config, cuts if config.patching.needs_entropies else None, recipe.seed)
        if new.lookup_table is not None:
            new.lookup_table = old.lookup_table
    new.to(old.device)
    beginning.notes |= take_weights(old, new) | take_tables(old, new)
    return new


def _same_shape(old: Config, new: Config) -> bool:
    """All but how text is cut."""
    one, other = to_dict(old), to_dict(new)
    del one["patching"], other["patching"]
    return one == other


def _same_modules(old: PatchingConfig, new: PatchingConfig) -> bool:
    """Do the two rules need the same modules and tables?"""
    same = (old.is_learned, old.rule == "lookup") == (new.is_learned, new.rule == "lookup")
    return same and old.lookup_order == new.lookup_order


def _values(beginning: Beginning, recipe: Recipe) -> dict[str, Any]:
    """What may differ, by dotted names."""
    model, section = beginning.model, SECTIONS[recipe.kind]
    found = flat({section: to_dict(model.config)})
    if isinstance(model, BLT):
        own = model.entropy_model
        found["entropy_model"] = identity(own)[:12] if own is not None else None
        table = model.lookup_table
        found["lookup_table"] = None if table is None else f"{int(table.sum())} n-grams cut"
    if isinstance(model, TokenLM):
        found["tokenizer"] = f"{model.tokenizer.vocab_size} tokens"
    return found


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], notes: Mapping[str, str], section: str
) -> list[dict[str, Any]]:
    """Keys with their values before and after, and how what is new begins."""
    found = []
    told = {f"{section}.{key}" if key in TABLES else key: how for key, how in notes.items()}
    for key in sorted(before.keys() | after.keys() | told.keys()):
        was, now, note = before.get(key), after.get(key), told.get(key)
        if was != now or note is not None:
            found.append({"key": key, "was": was, "is": now} | ({"how": note} if note else {}))
    return found


def _measured(
    model: LanguageModel, recipe: Recipe, sources: Sequence[Source]
) -> dict[str, float | int | None]:
    """Bits per byte, and bytes per patch, of the text that evaluations of the training score."""
    data, by_source = recipe.data, heldout_by_source(sources)
    share = recipe.train.eval_bytes // max(1, len(by_source))
    pieces = [
        piece for texts in by_source.values() for piece in choose(texts, share, data.context_bytes)
    ]
    how = {
        "context_bytes": data.context_bytes,
        "dtype": choose_dtype(recipe.train.precision, model.device),
    }
    training, size = model.training, None
    model.eval()
    bits = bits_per_byte(model, pieces, **how) if pieces else None  # type: ignore[arg-type]
    if isinstance(model, BLT) and pieces:
        size = model.patcher.mean_patch_size(pieces, sample_bytes=None, **how)
    model.train(training)
    return {"bits_per_byte": bits, "patch_size": size, "bytes": sum(map(len, pieces))}


def _lines(found: Mapping[str, Any], name: str) -> list[str]:
    """What is in init.json, for a reader on this machine."""
    lines = [f"begins from {name}: {_scored(found['heldout']['as_it_was'])}"]
    if found["stored_as"] != "float32":
        lines.append(f"its weights are stored as {found['stored_as']}, and trained as float32")
    for one in found["changed"]:
        values = f" {_shown(one['was'])} → {_shown(one['is'])}" * (one["was"] != one["is"])
        how = f": {one['how']}" if "how" in one else ""
        lines.append(f"changed: {one['key']}{values}{how}")
    if found["changed"]:
        lines.append(f"as changed: {_scored(found['heldout']['as_changed'])}")
    return lines


def _scored(values: Mapping[str, Any]) -> str:
    if values["bits_per_byte"] is None:
        return "no text is held out to score it by"
    size = values["patch_size"]
    patches = "" if size is None else f", {size:.2f} bytes per patch"
    return f"{values['bits_per_byte']:.3f} bits per byte of held-out text{patches}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "none" if value is None else str(value)
