"""Model folders come back exactly, and never half-written; damaged ones are named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import blt
from blt import ByteTransformerConfig
from blt.checkpoint.convert import convert
from blt.checkpoint.pretrained import load_patcher, save_patching
from blt.errors import UserError
from blt.patching import PatchingConfig
from shapes import tiny_config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_gives_what_was_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    for model in (blt.BLT(tiny_config()), blt.ByteLM(blt.ByteTransformerConfig(dim=32, heads=2))):
        model.to(dtype).save(tmp_path / "m")
        loaded = blt.load(tmp_path / "m")
        assert type(loaded) is type(model)
        assert loaded.config == model.config
        for name, tensor in model.state_dict().items():
            other = loaded.state_dict()[name]
            assert other.dtype == dtype
            assert torch.equal(tensor, other), name


def test_a_loaded_model_gives_the_same_logits(tmp_path: Path, lm: blt.BLT) -> None:
    lm.save(tmp_path / "m")
    ids = blt.encode("the same")
    assert torch.equal(blt.load(tmp_path / "m").logits(ids), lm.logits(ids))


@pytest.fixture
def folder(tmp_path: Path, lm: blt.BLT) -> Path:
    lm.save(tmp_path / "model")
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"] |= changes
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, drop: str | None = None, **changes: torch.Tensor) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(drop, None) if drop else None
    save_file(tensors | changes, folder / "model.safetensors")


def test_missing_files_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder"):
        blt.load(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: missing"):
        blt.load(folder)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "flipped", "empty"])
def test_damaged_weights_are_named(folder: Path, damage: str) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "garbage": b"not tensors at all" * 9,
            "flipped": bytes(255 - b for b in whole[:64]) + whole[64:],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        blt.load(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\xff", '{"model_type": "llama"}', '{"format": "x"}'])
def test_foreign_or_damaged_configs_are_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json: (damaged|not a blt checkpoint)"):
        blt.load(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"globl_dim": 64}, "'globl_dim'; did you mean 'global_dim'"),
        ({"global_dim": "big"}, "global_dim"),
        ({"global_dim": 63}, "global_dim 63 is not a multiple"),
        ({"patching": {"rule": "entropie"}}, "rule"),
        ({"patching": {"treshold": 1.0}}, "did you mean 'threshold'"),
        ({"local_dim": -1}, "local_dim"),
    ],
)
def test_a_bad_config_names_its_key(folder: Path, changes: dict[str, Any], named: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(UserError, match=named):
        blt.load(folder)


def test_weights_that_do_not_fit_are_named(folder: Path) -> None:
    name = "decoder.head.weight"
    edit_weights(folder, drop=name)
    with pytest.raises(UserError, match=f"'{name}' is missing"):
        blt.load(folder)
    edit_weights(folder, **{name: torch.zeros(3, 4)})
    with pytest.raises(UserError, match=r"shape \(3, 4\)"):
        blt.load(folder)
    edit_weights(folder, **{name: torch.zeros(260, 32), "surprise": torch.zeros(1)})
    with pytest.raises(UserError, match="unknown tensor 'surprise'"):
        blt.load(folder)


def test_what_is_not_a_model_is_never_overwritten(tmp_path: Path, lm: blt.BLT) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not overwritten"):
        lm.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", '{"port": 80}', "is not that of a model"),
        ("config.json", "[]", "config.json"),
        ("src/thesis.txt", "years of work", "has 'src', which is no part of a model"),
        ("notes.txt", "mine", "has 'notes.txt', which is no part of a model"),
        (".git/HEAD", "ref", "has '.git', which is no part of a model"),
    ],
)
def test_a_folder_with_more_than_a_model_is_not_overwritten(
    folder: Path, lm: blt.BLT, name: str, text: str, said: str
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=said):
        lm.save(folder)
    with pytest.raises(UserError, match=said):
        convert(folder.parent / "none", folder)
    assert (folder / name).read_text() == text


def test_a_model_in_any_layout_is_overwritten(tmp_path: Path) -> None:
    flat = ByteTransformerConfig(dim=32, heads=2, layers=1, ff_dim=96, sliding_window=64)
    shape = {"encoder_ff_dim": 96, "decoder_ff_dim": 96, "global_ff_dim": 176}
    lm, folder = blt.BLT(tiny_config(**shape, entropy_model=flat)), tmp_path / "model"
    lm.save(folder)
    (folder / "README.md").write_text("a card")
    for to in ("transformers", "meta"):
        convert(folder, tmp_path / to, to)
        lm.save(tmp_path / to)
        convert(folder, tmp_path / to, to)  # over ours
        convert(folder, tmp_path / to, to)  # and over theirs


@pytest.mark.parametrize("which", [1, 2])
def test_where_folders_cannot_be_exchanged_an_interrupt_loses_neither_model(
    folder: Path, lm: blt.BLT, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    before = contents(folder)
    calls: list[Any] = []

    def replace(written: Any, place: Any) -> None:
        calls.append(place)
        if len(calls) == which:
            raise KeyboardInterrupt
        os.replace(written, place)

    monkeypatch.setattr("blt.checkpoint.folders.exchange", lambda a, b: False)
    monkeypatch.setattr("blt.checkpoint.folders.durable.replace", replace)
    with pytest.raises(KeyboardInterrupt):
        lm.save(folder)
    assert contents(folder) == before


def test_a_folder_that_stays_in_its_place_is_refused_before_a_model_is_made(
    folder: Path, lm: blt.BLT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current one, and where a disk is mounted; whoever writes."""
    before = contents(folder)
    monkeypatch.chdir(folder)
    for place in (".", folder):
        for write in (lm.save, lambda place: convert("pretrained", place)):
            with pytest.raises(UserError, match=r"is the current folder, .* name another folder"):
                write(place)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    with pytest.raises(UserError, match=r"is where a disk is mounted, .* name another folder"):
        lm.save(folder)
    assert contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_the_system_keeps_in_its_place_is_as_it_was(
    tmp_path: Path, lm: blt.BLT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder is moved away by the name '..': known only when it is tried."""
    shape = ByteTransformerConfig(dim=32, heads=2, layers=1, ff_dim=96, sliding_window=64)
    blt.ByteLM(shape).save(tmp_path / "model/inside")
    lm.save(tmp_path / "model.other")
    for file in (tmp_path / "model.other").iterdir():
        file.replace(tmp_path / "model" / file.name)
    monkeypatch.chdir(tmp_path / "model/inside")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    with pytest.raises(UserError, match=r"^\.\.: cannot be replaced \(.*busy\), and is as it was"):
        lm.save("..")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == names
    assert blt.load(tmp_path / "model").config == lm.config


def test_the_rule_of_an_entropy_model_goes_where_it_goes(tmp_path: Path) -> None:
    """Loaded and saved, in Meta's layout, and below an adapter."""
    shape = ByteTransformerConfig(dim=24, heads=2, layers=1, ff_dim=64, sliding_window=8)
    blt.ByteLM(shape).save(tmp_path / "one")
    rule = PatchingConfig(threshold=3.25, max_patch_length=9)
    save_patching(tmp_path / "one", rule)
    blt.load(tmp_path / "one").save(tmp_path / "two")
    assert load_patcher(tmp_path / "two").config == rule
    convert(tmp_path / "two", tmp_path / "meta", "meta")
    found = load_patcher(tmp_path / "meta").config
    assert (found.threshold, found.max_patch_length) == (3.25, 9)
    blt.load(tmp_path / "meta").save(tmp_path / "three")
    assert load_patcher(tmp_path / "three").config == found


@pytest.mark.parametrize("kind", ["blt", "byte"])
def test_what_a_model_began_as_goes_where_it_goes(tmp_path: Path, lm: blt.BLT, kind: str) -> None:
    model = lm if kind == "blt" else blt.ByteLM(ByteTransformerConfig(dim=24, heads=2, layers=1))
    model.save(tmp_path / "one")
    begun = {"init": "other", "changed": []}
    (tmp_path / "one/init.json").write_text(json.dumps(begun))
    blt.load(tmp_path / "one").save(tmp_path / "two")
    convert(tmp_path / "two", tmp_path / "three")
    blt.load(tmp_path / "three").save(tmp_path / "one")  # over itself
    for name in ("one", "two", "three"):
        assert json.loads((tmp_path / name / "init.json").read_text()) == begun
    model.save(tmp_path / "one")  # of another, which began anew
    assert not (tmp_path / "one/init.json").exists()


def test_an_interrupted_save_leaves_the_old_model(
    folder: Path, lm: blt.BLT, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)

    def fail(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("blt.files.tensors.save_file", fail)
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be written \(disk full\)"):
        lm.save(folder)
    assert contents(folder) == before
    assert [file.name for file in folder.parent.iterdir()] == ["model"]
