"""A model stored in int8 is the same model, rounded: it loads, writes, and goes to every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import blt
from blt import cli
from blt.checkpoint.card import write_card
from blt.checkpoint.convert import convert
from blt.checkpoint.open import open_checkpoint
from blt.checkpoint.pretrained import load_patcher
from blt.errors import UserError
from blt.files.stored import SHARD_BYTES
from blt.patching.patcher import Patcher
from blt.report.verify import verify
from checkpoints import equal_weights, random_model, text_ids
from shapes import TINY, random_blt, tiny_config

CUTS = blt.ByteTransformerConfig(dim=32, heads=2, layers=1, ff_dim=96, sliding_window=64)
WIDTHS = {"encoder_ff_dim": 96, "decoder_ff_dim": 96, "global_ff_dim": 192}  # Meta's derives them


@pytest.fixture
def model() -> blt.BLT:
    return random_model(1, config=tiny_config(**WIDTHS, entropy_model=CUTS))


@pytest.fixture
def folder(tmp_path: Path, model: blt.BLT) -> Path:
    model.save(tmp_path / "floats")
    convert(tmp_path / "floats", tmp_path / "int8", precision="int8")
    return tmp_path / "int8"


def products(folder: Path) -> dict[str, torch.Tensor]:
    """Independent of the library: whole numbers times scales."""
    found = load_file(folder / "model.safetensors")
    return {
        name: tensor.float() * found[f"{name}.scale"][:, None]
        if tensor.dtype == torch.int8
        else tensor
        for name, tensor in found.items()
        if not name.endswith(".scale")
    }


def test_it_loads_as_float32_and_writes(folder: Path, model: blt.BLT) -> None:
    lm = blt.load(folder)
    expected = products(folder)
    assert lm.state_dict().keys() == expected.keys()
    for name, tensor in lm.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
        assert tensor.dtype == torch.float32
        if tensor.dim() == 1:
            assert torch.equal(tensor, model.state_dict()[name]), name
    assert "float32 on cpu" in repr(lm)
    assert len(lm.generate("The ", max_bytes=9, ignore_eos=True).data) == 9


def test_it_takes_little_more_than_a_quarter_of_the_room(tmp_path: Path, folder: Path) -> None:
    sizes = [(tmp_path / x / "model.safetensors").stat().st_size for x in ("floats", "int8")]
    assert sizes[1] < 0.3 * sizes[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_becomes_floats_again(tmp_path: Path, folder: Path, precision: str) -> None:
    convert(folder, tmp_path / "again", precision=precision)
    dtype = getattr(torch, precision)
    expected, found = products(folder), load_file(tmp_path / "again" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], x.to(dtype)) for name, x in expected.items())


@pytest.mark.parametrize("layout", ["transformers", "meta"])
def test_other_layouts_get_it_as_float32(tmp_path: Path, folder: Path, layout: Any) -> None:
    convert(folder, tmp_path / "theirs", layout)
    assert equal_weights(blt.load(tmp_path / "theirs"), blt.load(folder))
    convert(tmp_path / "theirs", tmp_path / "back", precision="int8")
    for name, x in products(folder).items():  # scales may differ in the last bit
        assert torch.allclose(products(tmp_path / "back")[name], x, rtol=1e-6, atol=0), name


@pytest.mark.parametrize("shard_bytes", [10_000, SHARD_BYTES])
def test_it_is_copied_bit_for_bit(tmp_path: Path, folder: Path, shard_bytes: int) -> None:
    convert(folder, tmp_path / "copy", shard_bytes=shard_bytes)
    files = (tmp_path / "copy").glob("*.safetensors")
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    expected = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert equal_weights(blt.load(tmp_path / "copy"), blt.load(folder))


def test_what_is_saved_is_floats_as_ever(tmp_path: Path, folder: Path) -> None:
    blt.load(folder).save(tmp_path / "saved")
    assert not any(
        x.dtype == torch.int8 for x in load_file(tmp_path / "saved" / "model.safetensors").values()
    )
    assert equal_weights(blt.load(tmp_path / "saved"), blt.load(folder))


def test_tables_of_bools_stay(tmp_path: Path) -> None:
    random_blt("lookup", lookup_order=1).save(tmp_path / "floats")
    convert(tmp_path / "floats", tmp_path / "int8", precision="int8")
    table = "lookup_table"
    assert torch.equal(
        blt.load(tmp_path / "int8").state_dict()[table],
        blt.load(tmp_path / "floats").state_dict()[table],
    )


def test_an_entropy_model_keeps_its_rule(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, ids = blt.ByteLM(TINY), text_ids(0)
    model.save(tmp_path / "floats")
    (tmp_path / "floats" / "patching.json").write_text('{"threshold": 5.5}')
    (tmp_path / "floats" / "checksums.json").unlink()
    convert(tmp_path / "floats", tmp_path / "int8", precision="int8")
    patcher = load_patcher(tmp_path / "int8")
    assert patcher.config.threshold == 5.5
    (found,), (was,) = patcher.entropies([ids]), Patcher(patcher.config, model).entropies([ids])
    assert found is not None
    assert was is not None
    assert (found - was).abs().max() < 0.01
    logits = model.logits(ids)
    assert (blt.load(tmp_path / "int8").logits(ids) - logits).norm() < 0.03 * logits.norm()


def test_the_card_and_the_check_know_it(folder: Path) -> None:
    card = write_card(open_checkpoint(folder), "blt", "me/mine", None)
    floats = write_card(open_checkpoint(folder.parent / "floats"), "blt", "me/mine", None)
    assert "| precision | float32, int8 |" in card
    assert card == floats.replace("| precision | float32 |", "| precision | float32, int8 |")
    assert verify(folder).faults == []


def test_damaged_scales_are_neither_loaded_nor_copied(tmp_path: Path, folder: Path) -> None:
    (folder / "checksums.json").unlink()
    tensors = load_file(folder / "model.safetensors")
    tensors["decoder.head.weight.scale"][3] = -1
    save_file(tensors, folder / "model.safetensors")
    named = r"int8.model\.safetensors: tensor 'decoder\.head\.weight\.scale' has scales below 0"
    for attempt in (
        lambda: blt.load(folder),
        lambda: convert(folder, tmp_path / "out"),
        lambda: convert(folder, tmp_path / "out", "transformers"),
    ):
        with pytest.raises(UserError, match=named):
            attempt()
    assert not (tmp_path / "out").exists()
    assert "below 0" in verify(folder).faults[0]


@pytest.mark.parametrize("layout", ["transformers", "meta"])
def test_other_layouts_have_no_int8(
    tmp_path: Path, folder: Path, layout: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["convert", str(folder), str(tmp_path / "out"), "--precision", "int8"]
    assert cli.main([*args, "--to", layout]) == 2
    said = capsys.readouterr().err
    assert f"only our own layout has int8: leave out --to {layout}, or choose" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
