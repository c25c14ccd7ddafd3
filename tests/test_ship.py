"""A model goes into the package whole, in few bits, and only if it is small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import blt
from blt.checkpoint.pretrained import read_patching, save_patching
from blt.patching import PatchingConfig
from shapes import TINY, random_blt
from tools import ship


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bfloat16", torch.bfloat16), ("int8", torch.int8)]
)
def test_models_are_stored_in_few_bits(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    lm, entropy_model = random_blt(), blt.ByteLM(TINY)
    lm.save(tmp_path / "blt-run")
    entropy_model.save(tmp_path / "byte-run")
    save_patching(tmp_path / "byte-run", PatchingConfig(threshold=1.5))
    for run in ("blt-run", "byte-run"):
        ship.main(tmp_path / run, precision, tmp_path / "assets")
    assert read_patching(tmp_path / "assets/entropy_model/patching.json").threshold == 1.5
    for name, model in (("blt", lm), ("entropy_model", entropy_model)):
        folder = tmp_path / "assets" / name
        stored, loaded = load_file(folder / "model.safetensors"), blt.load(folder)
        for key, tensor in model.state_dict().items():
            assert tensor.dim() == 1 or stored[key].dtype == dtype
            error = (loaded.state_dict()[key].float() - tensor).abs().max()
            assert error <= tensor.abs().max() / 200, key


def test_a_model_that_is_too_large_ends_in_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "HOMES", {"byte": ("entropy_model", 10_000)})
    blt.ByteLM(TINY).save(tmp_path / "run")
    (tmp_path / "assets" / "entropy_model").mkdir(parents=True)
    (tmp_path / "assets" / "entropy_model" / "before").write_text("the model that is there")
    with pytest.raises(SystemExit, match=r"entropy_model: \d+ bytes, more than 10000"):
        ship.main(tmp_path / "run", "int8", tmp_path / "assets")
    there = tmp_path / "assets" / "entropy_model" / "before"
    assert there.is_file()  # nothing has come in its place
    assert list((tmp_path / "assets").iterdir()) == [there.parent]
