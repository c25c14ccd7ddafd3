"""Tensors come back from files as they went in, whatever shards, blocks and pieces they pass."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from blt.errors import UserError
from blt.files import stored
from blt.files.stored import DTYPES, Stored
from blt.files.tensors import Held, Joined, Piece, Rearranged

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3)


@st.composite
def named_tensors(draw: st.DrawFn) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    made = {}
    for index in range(draw(st.integers(1, 6))):
        dtype = draw(st.sampled_from(list(DTYPES.values())))
        made[f"tensor.{index}"] = torch.randn(draw(SHAPES), generator=generator).to(dtype)
    return made


@given(named_tensors(), st.integers(1, 2000), st.integers(1, 500))
def test_what_is_written_is_read_by_us_and_by_safetensors(
    tensors: dict[str, Tensor], shard_bytes: int, block_bytes: int
) -> None:
    with (
        tempfile.TemporaryDirectory() as scratch,
        patch("blt.files.tensors.BLOCK_BYTES", block_bytes),
    ):
        folder = Path(scratch)
        stored.write(folder, Held(tensors), shard_bytes)
        found = Stored(folder)
        assert found.specs == Held(tensors).specs
        theirs = {k: t for path in found.files for k, t in load_file(path).items()}
        for name, tensor in tensors.items():
            assert torch.equal(found.read(name), tensor)
            assert torch.equal(theirs[name], tensor)
            assert torch.equal(found.rows(name, 1, len(tensor)), tensor[1:])


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 100), st.data())
def test_pieces_are_put_together_and_taken_apart(
    parts: int, rows: int, width: int, block_bytes: int, data: st.DataObject
) -> None:
    whole = torch.arange(parts * rows * width).view(-1, width).float()
    names = [f"part {index}" for index in range(parts)]
    held = Held(dict(zip(names, whole.split(rows), strict=True)))
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    with patch("blt.files.tensors.BLOCK_BYTES", block_bytes):
        joined = Rearranged(held, {"whole": tuple(map(Piece, names))}, "here")
        assert torch.equal(joined.read("whole"), whole)
        assert torch.equal(joined.rows("whole", start, stop), whole[start:stop])
        pieces = {name: (Piece("whole", index, parts),) for index, name in enumerate(names)}
        apart = Rearranged(joined, pieces, "here")
        for name in names:
            assert torch.equal(apart.read(name), held.read(name))
    both = Joined(held, "other.", held)
    assert torch.equal(both.read("other.part 0"), both.read("part 0"))


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_that_is_cut_off_while_it_is_read_is_named(tmp_path: Path, mapped: bool) -> None:
    stored.write(tmp_path, Held({"a": torch.ones(50, 3)}))
    found, path = Stored(tmp_path), tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with (
        patch("blt.files.stored.MAPPED_BYTES", 1 if mapped else 2**30),
        pytest.raises(UserError, match=rf"^{path}: (damaged|ended early)"),
    ):
        found.read("a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", stored.INDEX])
def test_a_file_that_a_full_disk_does_not_take_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    two = Held({"a": torch.ones(50, 3), "b": torch.ones(50, 3)})
    with pytest.raises(UserError, match=rf"^{tmp_path / name}: cannot be written \(.*No space"):
        stored.write(tmp_path, two, shard_bytes=300)
