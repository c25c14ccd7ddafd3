"""Prepared shards notice damage, and terabytes of them open at once."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.data import Loader
from blt.data.manifest import MANIFEST
from blt.data.order import Permutation
from blt.data.prepare import Options, prepare
from blt.data.shards import ShardSegments
from blt.errors import UserError


@pytest.mark.parametrize("damage", ["truncated", "missing", "garbage"])
def test_a_damaged_shard_is_named(tmp_path: Path, sources: tuple[str, ...], damage: str) -> None:
    prepare(tmp_path / "out", Options(sources))
    segments = ShardSegments(tmp_path / "out")
    path = next((tmp_path / "out").glob("units/*/train*.arrow"))
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:-9] if damage == "truncated" else b"x" * len(data))
    with pytest.raises(UserError, match=r"train-00001\.arrow: missing or damaged"):
        segments.read(0, 0, 1)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_lengths_are_named_and_preparing_again_restores_them(
    tmp_path: Path, sources: tuple[str, ...], damage: str
) -> None:
    prepare(tmp_path / "out", Options(sources))
    path = tmp_path / "out/train.lengths"
    whole = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(whole[:-4])
    with pytest.raises(UserError, match=r"train\.lengths: missing or damaged"):
        ShardSegments(tmp_path / "out")
    prepare(tmp_path / "out", Options(sources))
    assert path.read_bytes() == whole


def test_a_manifest_of_something_else_is_refused(tmp_path: Path) -> None:
    for text, message in (("{", "damaged"), ("{}", "is not the manifest"), ("[]", "damaged")):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(UserError, match=message):
            ShardSegments(tmp_path)


def test_a_terabyte_of_shards_opens_without_touching_them(tmp_path: Path) -> None:
    """16,384 shards of 64 MB: only the manifest is read, and lengths and order take no memory."""
    shards = [
        {
            "file": f"units/{n:05d}/train-00001.arrow",
            "split": "train",
            "rows": 8192,
            "bytes": 2**26,
            "size": 2**26,
            "sha256": f"{n:064x}",
        }
        for n in range(16384)
    ]
    manifest = {"format": "blt-shards-1", "shards": shards, "entropy_model": None}
    manifest |= {"options": {"newline_reset": False}, "splits": {}, "units": []}
    manifest |= {"documents": 0, "bytes": 0, "broken": 0}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with (tmp_path / "train.lengths").open("wb") as file:
        file.truncate(4 * 16384 * 8192)  # sparse
    tracemalloc.start()
    segments = ShardSegments(tmp_path)
    loader = Loader([segments], batch_bytes=8192, context_bytes=8192)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert segments.num_bytes == 2**40
    assert len(segments) == 2**27
    assert peak < 64 * 2**20  # an order of 2**27 segments alone would be a gigabyte
    with pytest.raises(UserError, match="missing or damaged"):  # only now is a shard opened
        next(loader)


@given(st.integers(1, 5000), st.integers(0), st.integers(0, 3))
def test_an_order_has_everything_once(count: int, seed: int, epoch: int) -> None:
    order = Permutation(count, seed, epoch)
    assert sorted(order[place] for place in range(count)) == list(range(count))


def test_orders_look_shuffled() -> None:
    """Neighbours are as far apart as in a random order, and keys give other orders."""
    order = [Permutation(10_000, 1, 0)[place] for place in range(10_000)]
    apart = sum(abs(a - b) for a, b in pairwise(order)) / 9_999
    assert apart == pytest.approx(10_000 / 3, rel=0.05)
    other = [Permutation(10_000, 1, 1)[place] for place in range(10_000)]
    assert sum(a == b for a, b in zip(order, other, strict=True)) < 20
