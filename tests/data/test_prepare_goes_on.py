"""Preparing survives kills, goes on after edits, and shares no folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blt.data.heldout import content_hash
from blt.data.manifest import MANIFEST
from blt.data.prepare import Options, prepare
from blt.data.shards import HELDOUT, ShardSegments, ShardWriter
from blt.data.sources import units
from blt.errors import UserError
from blt.files.lock import LOCK, held
from prepared import content, rows, write_lines


def test_a_kill_while_text_is_divided_anew_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tuple(write_lines(tmp_path / f"{n}.jsonl", [f"text {n}"] * 9) for n in range(3))
    options = Options(sources, heldout=1e-4)
    prepare(tmp_path / "whole", options)
    replace_folder = os.replace

    def killed(old: Any, new: Any) -> None:
        replace_folder(old, new)
        if str(old).endswith("00001"):  # the first division has been moved away
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "cut", options)
    monkeypatch.setattr(os, "replace", replace_folder)
    assert not (tmp_path / "cut/units/00001").exists()
    prepare(tmp_path / "cut", options)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_work_that_was_killed_goes_on_and_ends_the_same(
    tmp_path: Path, sources: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(sources, heldout=0.2, segment_bytes=16, shard_bytes=64)
    prepare(tmp_path / "whole", options)
    write = ShardWriter.write

    def killed(self: ShardWriter, path: Path, split: str) -> Any:
        if ".00001." in str(path) and "00002.arrow" in path.name:
            raise KeyboardInterrupt
        return write(self, path, split)

    monkeypatch.setattr(ShardWriter, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "cut", options)
    assert not (tmp_path / "cut" / MANIFEST).exists()
    monkeypatch.setattr(ShardWriter, "write", write)
    (tmp_path / "cut/units/.00001.left/new").mkdir(parents=True)  # as SIGKILL leaves it
    finished = sorted((tmp_path / "cut/units").glob("0*/*"))
    times = [path.stat().st_mtime_ns for path in finished]
    assert finished
    prepare(tmp_path / "cut", options)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert [path.stat().st_mtime_ns for path in finished] == times  # not written again
    assert not list((tmp_path / "cut/units").glob(".*"))


def test_a_folder_in_work_is_refused_to_other_programs_until_it_ends_or_is_killed(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    code = f"""
import time
from blt.data.prepare import Options, prepare
def begun(*_):
    print("begun", flush=True)
    time.sleep(600)
prepare({str(out)!r}, Options({sources!r}), on_progress=begun)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"begun\n"
        (out / "units/.00001.at_work/new").mkdir(parents=True)  # as if it were in the next file
        with pytest.raises(
            UserError, match=r"/out: is being written into by another program; wait"
        ):
            prepare(out, Options(sources))
        assert (out / "units/.00001.at_work/new").is_dir()
    finally:
        other.kill()
        other.communicate()
    prepare(out, Options(sources))
    prepare(tmp_path / "whole", Options(sources))
    assert content(out) == content(tmp_path / "whole")
    assert not list((out / "units").glob(".*"))


def test_a_folder_is_free_again_behind_an_end_or_an_error(
    tmp_path: Path, sources: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To another thread, to which a lock of this one is another program's."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as other, monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "out", Options(sources))
        patch.undo()
        found = other.submit(prepare, tmp_path / "out", Options(sources)).result()
        assert prepare(tmp_path / "out", Options(sources)) == found
        with held(tmp_path / "out"):
            refused = other.submit(prepare, tmp_path / "out", Options(sources))
            with pytest.raises(UserError, match="another program"):
                refused.result()


def test_a_lock_is_no_content_of_a_folder(tmp_path: Path, sources: tuple[str, ...]) -> None:
    """As a kill before anything else was written leaves it."""
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / LOCK).touch()
    with pytest.raises(UserError, match="no text in it"):
        prepare(tmp_path / "out", Options((str(texts),)))
    prepare(texts, Options(sources))
    assert (texts / LOCK).is_file()
    named = [unit.name for unit in units(f"{tmp_path}/**")]
    assert named == sorted(sources)
    whole = prepare(tmp_path / "out", Options(sources))
    assert rows(ShardSegments(texts)) == rows(ShardSegments(tmp_path / "out"))
    assert prepare(texts, Options(sources)) == whole


def test_a_file_that_was_edited_is_prepared_again_and_no_other(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    """Also where it is as long as before."""
    out, options = tmp_path / "out", Options(sources, heldout=0.0)
    prepare(out, options)
    before = sorted(out.glob("units/0*/*.arrow"))
    times = [path.stat().st_mtime_ns for path in before]
    edited = Path(sources[1])
    edited.write_text(edited.read_text().replace("text ", "next "))
    prepare(out, options)
    texts = b" ".join(rows(ShardSegments(out))).split()
    assert (texts.count(b"text"), texts.count(b"next")) == (2 * 66, 66)
    again = [path.stat().st_mtime_ns for path in before]
    assert [old == new for old, new in zip(times, again, strict=True)] == [True, False, True]
    prepare(tmp_path / "whole", options)
    assert content(out) == content(tmp_path / "whole")


def test_what_is_held_out_follows_an_edited_file(tmp_path: Path) -> None:
    """Where hashes alone held out nothing, and now do, no other file keeps what was held out."""
    sources = tuple(write_lines(tmp_path / f"{n}.jsonl", [f"text {n}"] * 9) for n in range(3))
    options = Options(sources, heldout=0.02)
    prepare(tmp_path / "out", options)
    last = max(range(3), key=lambda n: content_hash(b"text %d" % n))  # another one is held out
    held = next(text for n in range(999) if content_hash((text := f"{n:06}").encode()) < 0.02)
    write_lines(Path(sources[last]), [held] * 9)
    prepare(tmp_path / "out", options)
    assert rows(ShardSegments(tmp_path / "out", HELDOUT)) == [held.encode()] * 9
    prepare(tmp_path / "whole", options)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_other_options_and_foreign_folders_are_refused(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    options = Options(sources)
    prepare(tmp_path / "out", options)
    before = content(tmp_path / "out")
    with pytest.raises(UserError, match="other sources, options or entropy model"):
        prepare(tmp_path / "out", replace(options, heldout=0.5))
    assert content(tmp_path / "out") == before
    assert prepare(tmp_path / "out", options) == before[1]  # finished: nothing to do
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/.plan.json.new").write_text("{")  # and nothing else
    assert prepare(tmp_path / "killed", options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else"):
        prepare(tmp_path / "mine", options)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_after_too_many_broken_lines_more_may_be_broken_in_the_same_folder(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    broken = tmp_path / "d.jsonl"
    broken.write_text('{"text": "good"}\n' + "{\n" * 3)
    options = Options((*sources, str(broken)), heldout=0.0, max_broken=2)
    with pytest.raises(UserError, match="more may be broken with"):
        prepare(tmp_path / "out", options)
    done = sorted((tmp_path / "out").glob("units/0*/*"))
    times = [path.stat().st_mtime_ns for path in done]
    assert done
    manifest = prepare(tmp_path / "out", replace(options, max_broken=3))
    assert (manifest["broken"], manifest["options"]["max_broken"]) == (3, 3)
    assert [path.stat().st_mtime_ns for path in done] == times  # what was done is kept


def test_a_full_disk_loses_nothing_that_was_whole(
    tmp_path: Path, sources: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, write = Options(sources), ShardWriter.write

    def full(self: ShardWriter, path: Path, split: str) -> Any:
        if "00002" in str(path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(self, path, split)

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(UserError, match="the disk is full"):
        prepare(tmp_path / "out", options)
    assert sorted(path.name for path in (tmp_path / "out/units").iterdir()) == ["00000", "00001"]
    monkeypatch.setattr(ShardWriter, "write", write)
    prepare(tmp_path / "out", options)
    prepare(tmp_path / "whole", options)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
