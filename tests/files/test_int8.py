"""What is stored in int8 comes back within half a scale, whatever blocks and shards it passes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from blt.errors import UserError
from blt.files import stored
from blt.files.int8 import SCALE, Dequantised, Quantised, types_in_files
from blt.files.stored import WITH_INT8, Stored
from blt.files.tensors import Held

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3)


def opened(folder: Path) -> Dequantised:
    return Dequantised(Stored(folder, WITH_INT8))


@st.composite
def named_tensors(draw: st.DrawFn) -> dict[str, Tensor]:
    """Matrices, vectors and tables of bools; of any size, with rows of zeros."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    made = {}
    for index in range(draw(st.integers(1, 5))):
        shape, dtype = draw(SHAPES), draw(st.sampled_from([torch.float32, torch.bfloat16]))
        size = draw(st.sampled_from([0.0, 1e-44, 1e-30, 1.0, 1e30]))
        values = (torch.randn(shape, generator=generator) * size).to(dtype)
        values[draw(st.integers(0, shape[0] - 1))] = 0
        made[f"tensor.{index}"] = values > 0 if draw(st.booleans()) else values
    return made


@given(named_tensors(), st.integers(1, 2000), st.integers(1, 500))
def test_every_value_is_within_half_a_scale_of_its_row(
    tensors: dict[str, Tensor], shard_bytes: int, block_bytes: int
) -> None:
    at_once = Quantised(Held(tensors))
    with (
        tempfile.TemporaryDirectory() as scratch,
        patch("blt.files.tensors.BLOCK_BYTES", block_bytes),
    ):
        folder = Path(scratch)
        stored.write(folder, at_once, shard_bytes)
        found = opened(folder)
        theirs = {k: t for path in found.stored.files for k, t in load_file(path).items()}
        assert found.specs.keys() == tensors.keys()
        for name, tensor in tensors.items():
            read = found.read(name)
            assert found.specs[name].shape == tensor.shape
            assert torch.equal(found.rows(name, 1, len(tensor)), read[1:])
            if tensor.dim() == 1 or tensor.dtype == torch.bool:
                assert read.dtype == tensor.dtype
                assert torch.equal(read, tensor)
                continue
            whole, scales = theirs[name], theirs[name + SCALE]
            assert (whole.dtype, scales.dtype) == (torch.int8, torch.float32)
            with patch("blt.files.tensors.BLOCK_BYTES", 2**20):
                assert torch.equal(whole, at_once.read(name))
                assert torch.equal(scales, at_once.read(name + SCALE))
            by_row = scales.view(-1, *[1] * (tensor.dim() - 1))
            assert torch.equal(read, whole.float() * by_row)
            assert torch.equal(scales, tensor.float().flatten(1).abs().amax(1) / 127)
            tiny = 127 * 2.0**-149  # scales of less are 0
            assert ((read - tensor.float()).abs() <= by_row * 0.50001 + tiny).all()


def test_halves_go_to_the_even_number_and_zeros_stay() -> None:
    rows = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5], [0.0] * 6])
    made = Quantised(Held({"x": rows}))
    assert made.read("x").tolist() == [[127, 0, 2, 2, 0, -2], [0] * 6]
    assert made.read("x" + SCALE).tolist() == [1, 0]


@given(st.integers(-127, 127), st.floats(2**-100, 2.0**100, width=32))
@example(127, 1.1754943508222875e-38)
def test_rounding_again_changes_no_whole_number(value: int, scale: float) -> None:
    row = torch.tensor([[127, value]]) * torch.tensor(scale)
    assert Quantised(Held({"x": row})).read("x").tolist() == [[127, value]]


def test_a_large_tensor_in_int8_is_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"x": torch.randn(64, 32), "norm": torch.randn(4000)}
    stored.write(tmp_path, Quantised(Held(tensors)))
    expected = {name: opened(tmp_path).read(name) for name in tensors}
    monkeypatch.setattr("blt.files.stored.MAPPED_BYTES", 1000)
    monkeypatch.setattr("blt.files.tensors.BLOCK_BYTES", 512)
    read: list[int] = []
    rows = Stored.rows

    def watched(self: Stored, name: str, start: int, stop: int) -> Tensor:
        read.append(stop - start)
        return rows(self, name, start, stop)

    found = opened(tmp_path)
    monkeypatch.setattr(Stored, "rows", watched)
    assert all(torch.equal(found.read(name), expected[name]) for name in tensors)
    assert read == [4] * 16  # the other is mapped


def test_files_say_what_they_hold(tmp_path: Path) -> None:
    tensors = {"x": torch.ones(3, 4), "norm": torch.ones(4), "table": torch.ones(9) > 0}
    stored.write(tmp_path, Quantised(Held(tensors)))
    assert types_in_files(opened(tmp_path)) == "float32, int8"
    assert types_in_files(Held(tensors)) == "float32"


# --- damage --------------------------------------------------------------------------------------

Tensors = dict[str, Tensor]
DAMAGES: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "no scales": (lambda t: {"x": t["x"]}, "'x' is int8, and its scales 'x.scale' are missing"),
    "no tensor": (lambda t: {"x.scale": t["x.scale"]}, "'x.scale' has scales for 'x'"),
    "floats": (lambda t: {**t, "x": t["x"].float()}, "'x.scale' has scales for 'x'"),
    "a vector": (lambda t: {**t, "x": t["x"][:, 0].clone()}, "'x', which is no int8 matrix"),
    "too few": (lambda t: {**t, "x.scale": torch.ones(2)}, "'x.scale' is .* of shape (2,)"),
    "a matrix": (lambda t: {**t, "x.scale": torch.ones(3, 1)}, "of shape (3, 1); scales of 'x'"),
    "float64": (lambda t: {**t, "x.scale": torch.ones(3).double()}, "'x.scale' is torch.float64"),
    "int8": (lambda t: {**t, "x.scale": t["x"][:, 0].clone()}, "'x.scale' is torch.int8"),
    "NaN": (lambda t: {**t, "x.scale": torch.tensor([1, torch.nan, 1])}, "'x.scale' has values"),
    "infinite": (lambda t: {**t, "x.scale": torch.tensor([1, torch.inf, 1])}, "'x.scale' has val"),
    "negative": (lambda t: {**t, "x.scale": torch.tensor([1, 1, -1.0])}, "scales below 0, or too"),
    "too large": (lambda t: {**t, "x.scale": torch.full((3,), 3e38)}, "scales below 0, or too"),
    "8 bits more": (lambda t: {**t, "y": t["x"].byte()}, "'y' is U8 of shape"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_names_the_file_and_the_tensor(tmp_path: Path, damage: str) -> None:
    change, named = DAMAGES[damage]
    good = {"x": torch.ones(3, 4, dtype=torch.int8), "x.scale": torch.ones(3)}
    save_file(good, tmp_path / "model.safetensors")
    assert torch.equal(opened(tmp_path).read("x"), torch.ones(3, 4))
    save_file(change(good), tmp_path / "model.safetensors")
    with pytest.raises(UserError) as error:
        opened(tmp_path)
    said = str(error.value)
    assert said.startswith(f"{tmp_path / 'model.safetensors'}: tensor ")
    first, _, last = named.partition(".*")
    assert first in said
    assert last in said
    assert "restore it" in said or "name the folder that they were made from" in said
    assert "\n" not in said
