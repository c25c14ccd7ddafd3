"""Whole files lie nowhere without a record of where they are from."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blt.errors import UserError
from blt.evals.overlap import blocks_of
from tools.texts import whole
from tools.texts.fetch import Source

NONE = blocks_of([])


def source(folder: Path, name: str, version: str, *kinds: str) -> Source:
    """A package, there already, that has a file of each kind."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        packed.writestr("LICENCE", "MIT")
        for kind in kinds:
            packed.writestr(kind, f"{name} {version} has this of {kind}\n" * 30)
    (folder / "packages").mkdir(parents=True, exist_ok=True)
    (folder / f"packages/{name}-{version}.whl").write_bytes(data.getvalue())
    return Source(
        name,
        client="pip",
        package=name,
        version=version,
        file=f"{name}-{version}.whl",
        sha256=hashlib.sha256(data.getvalue()).hexdigest(),
        licence="MIT",
        licence_file="LICENCE",
        attribution="its authors",
        files=[{"pattern": f"^{kind}$", "language": kind, "reader": "whole"} for kind in kinds],
    )


def files(folder: Path) -> set[str]:
    """Text that recipes read."""
    return {str(path.relative_to(folder)) for path in folder.glob("*/*.jsonl.gz")}


def recorded(folder: Path) -> set[str]:
    """Text that is as the record says."""
    record: dict[str, Any] = json.loads((folder / "SOURCES.json").read_text())
    named = {
        f"{kind}/{name}.jsonl.gz": of["kinds"]
        for name, of in record.items()
        for kind in of["kinds"]
    }
    return {
        path
        for path, hashes in named.items()
        if (folder / path).exists()
        and hashlib.sha256(gzip.decompress((folder / path).read_bytes())).hexdigest()
        == hashes[path.split("/")[0]]
    }


def test_text_goes_with_its_record_if_a_build_has_other_sources(tmp_path: Path) -> None:
    code, novels = source(tmp_path, "code", "1", "python"), source(tmp_path, "novels", "1", "books")
    whole.build(tmp_path, [code, novels], NONE)
    assert files(tmp_path) == {"python/code.jsonl.gz", "books/novels.jsonl.gz"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    whole.build(tmp_path, [code], NONE)
    assert files(tmp_path) == recorded(tmp_path) == {"python/code.jsonl.gz"}
    assert "novels" not in (tmp_path / "SOURCES.md").read_text()
    assert (tmp_path / "mine/letter.txt").exists()
    whole.build(tmp_path, [novels], NONE)
    assert files(tmp_path) == recorded(tmp_path) == {"books/novels.jsonl.gz"}


def test_no_kill_leaves_text_without_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each step in which text or record change, until there is none left."""
    steps = ((shutil, "rmtree"), (Path, "rename"), (Path, "replace"), (Path, "write_text"))
    for count in range(99):
        folder = tmp_path / str(count)
        before = [source(folder, "code", "1", "python"), source(folder, "novels", "1", "books")]
        after = [source(folder, "code", "2", "python", "technical")]
        whole.build(folder, before, NONE)
        left = count

        def killed(step: Callable[..., object]) -> Callable[..., object]:
            def call(*given: Any, **more: Any) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
                return step(*given, **more)

            return call

        with monkeypatch.context() as patch:
            for owner, name in steps:
                patch.setattr(owner, name, killed(getattr(owner, name)))
            try:
                whole.build(folder, after, NONE)
                break
            except KeyboardInterrupt:
                assert files(folder) == recorded(folder)
        whole.build(folder, after, NONE)
    assert count > 5
    assert files(folder) == recorded(folder) == {"python/code.jsonl.gz", "technical/code.jsonl.gz"}


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ('{"udhr": {"languages": {}}}', r"SOURCES\.json: is the record of other text; choose"),
        ("{", r"SOURCES\.json: damaged .*; delete it and the text in"),
    ],
)
def test_text_that_another_tool_recorded_is_left_alone(
    tmp_path: Path, record: str, error: str
) -> None:
    (tmp_path / "SOURCES.json").write_text(record)
    with pytest.raises(UserError, match=error):
        whole.build(tmp_path, [source(tmp_path, "code", "1", "python")], NONE)
    assert (tmp_path / "SOURCES.json").read_text() == record
    assert not files(tmp_path)
