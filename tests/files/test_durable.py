"""What has been written is on the disk before it takes the place of what was there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.checkpoint import folders
from blt.checkpoint.pretrained import save_patching
from blt.files import durable
from blt.study.folder import StudyFolder
from blt.train import Recipe, train_recipe
from blt.train.recipe import write_recipe
from shapes import TINY


class Disk:
    """What was synced, and what was moved while something of it was not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[tuple[int, int]] = set()
        self.moved: list[Path] = []
        self.folders_to_sync: set[Path] = set()
        self._replace, self._fsync = os.replace, os.fsync
        monkeypatch.setattr(os, "replace", self.replace)
        monkeypatch.setattr(os, "fsync", self.fsync)
        exchange = folders.exchange
        monkeypatch.setattr(folders, "exchange", lambda a, b: self.check(a, b, exchange))

    def fsync(self, handle: int) -> None:
        found = os.fstat(handle)
        self.synced.add((found.st_dev, found.st_ino))
        self.folders_to_sync = {
            path for path in self.folders_to_sync if path.stat().st_ino != found.st_ino
        }
        self._fsync(handle)

    def replace(self, source: Any, target: Any) -> None:
        self.check(Path(source), Path(target), self._replace)

    def check(self, source: Path, target: Path, move: Any) -> Any:
        inside = [source, *source.rglob("*")] if source.is_dir() else [source]
        for path in inside:
            found = path.stat()
            assert (found.st_dev, found.st_ino) in self.synced, f"{path} moved before a sync"
        self.moved.append(target)
        self.folders_to_sync.add(target.parent)
        return move(source, target)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_all_that_is_put_into_place_is_on_disk_before_and_its_name_after(
    disk: Disk, tmp_path: Path, byte_recipe_here: Recipe
) -> None:
    blt.ByteLM(TINY).save(tmp_path / "model")
    blt.ByteLM(TINY).save(tmp_path / "model")  # the old one gives way
    save_patching(tmp_path / "model", blt.PatchingConfig())
    write_recipe(tmp_path / "recipe.toml", byte_recipe_here)
    study = StudyFolder(tmp_path / "study")
    (tmp_path / "study" / "locks").mkdir(parents=True)
    study.append({"name": "a"})
    train_recipe(byte_recipe_here, tmp_path / "run")
    names = {path.name for path in disk.moved}
    assert {"model", "recipe.toml", "results.jsonl", "checkpoint", "patching.json"} <= names
    assert disk.folders_to_sync == set()
    metrics = (tmp_path / "run" / "metrics.jsonl").stat()
    assert (metrics.st_dev, metrics.st_ino) in disk.synced


@given(st.text(alphabet=st.characters(codec="utf-8")), st.booleans())
def test_a_file_is_whole_and_nothing_is_left_beside_it(text: str, there: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        if there:
            path.write_text("before")
        durable.write_text(path, text)
        assert path.read_bytes() == text.encode()
        assert [found.name for found in Path(folder).iterdir()] == ["file"]


@pytest.fixture
def byte_recipe_here(tmp_path: Path) -> Recipe:
    from blt.train import DataConfig, TrainConfig

    text = tmp_path / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, " for n in range(300)))
    train = TrainConfig(steps=2, precision="float32", evals=0)
    data = DataConfig((str(text),), context_bytes=100, batch_bytes=256)
    return Recipe("byte", data, train, byte_model=TINY)
