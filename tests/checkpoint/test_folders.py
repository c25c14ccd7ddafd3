"""Model folders come back exactly, and never half-written; damaged ones are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import blt
from blt.errors import UserError
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


def test_an_interrupted_save_leaves_the_old_model(
    folder: Path, lm: blt.BLT, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fail(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("blt.checkpoint.folders.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        lm.save(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [file.name for file in folder.parent.iterdir()] == ["model"]
