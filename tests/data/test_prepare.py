"""Prepared shards hold all text once, cut like live text, survive kills, and notice damage."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import cli, patching, vocab
from blt.data import Loader, cluster, split
from blt.data.heldout import content_hash
from blt.data.manifest import MANIFEST
from blt.data.order import Permutation
from blt.data.prepare import Options, prepare
from blt.data.shards import HELDOUT, ShardSegments, ShardWriter
from blt.data.sources import units
from blt.data.worker import Task, Worker
from blt.errors import UserError
from blt.files.lock import LOCK, held
from blt.model.config import ByteTransformerConfig
from texts import MULTILINGUAL

TINY = ByteTransformerConfig(dim=16, heads=2, layers=1, ff_dim=32, sliding_window=32)


def write_lines(path: Path, documents: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return str(path)


def rows(segments: ShardSegments) -> list[bytes]:
    return [segments.read(i, 0, segments.length(i)).data for i in range(len(segments))]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[str, ...]:
    """Three files of a few documents."""
    names = []
    for name in "abc":
        documents = [f"{name} {n} " + "text ü " * n for n in range(12)]
        names.append(write_lines(tmp_path / f"{name}.jsonl", documents))
    return tuple(names)


@pytest.fixture
def entropy_folder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    blt.ByteLM(TINY).save(tmp_path / "entropy")
    return str(tmp_path / "entropy")


def content(folder: Path) -> tuple[list[str], Any]:
    manifest = json.loads((folder / MANIFEST).read_text())
    return [shard["sha256"] for shard in manifest["shards"]], manifest


@given(
    st.lists(st.text(max_size=50), min_size=1, max_size=12),
    st.integers(1, 20),
    st.integers(1, 100),
)
def test_every_byte_lies_in_one_segment(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], longest: int, shard: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = write_lines(folder / "a.jsonl", ["some text", *texts])
    options = Options((source,), heldout=0.3, segment_bytes=longest, shard_bytes=shard)
    manifest = prepare(folder / "out", options)
    found: list[bytes] = []
    for side in ("train", "heldout"):
        segments = ShardSegments(folder / "out", side)
        text = b""
        for index in range(len(segments)):
            piece = segments.read(index, 0, segments.length(index))
            assert 1 <= len(piece.data) <= longest
            text += piece.data
            assert segments.ends(index) == (piece.following == vocab.EOS)
            if segments.ends(index):
                found.append(text)
                text = b""
            else:
                assert piece.following == segments.read(index + 1, 0, 1).data[0] + vocab.OFFSET
        assert text == b""
        assert sum(map(len, rows(segments))) == manifest["splits"][side]["bytes"]
    assert Counter(found) == Counter(t.encode() for t in ["some text", *texts] if t)


def test_the_end_of_a_long_document_is_held_out(tmp_path: Path) -> None:
    text = MULTILINGUAL * 400
    (tmp_path / "long.txt").write_bytes(text)
    prepare(tmp_path / "out", Options((str(tmp_path / "long.txt"),), heldout=0.1))
    heldout = b"".join(rows(ShardSegments(tmp_path / "out", HELDOUT)))
    assert b"".join(rows(ShardSegments(tmp_path / "out"))) + heldout == text
    assert len(heldout) == pytest.approx(0.1 * len(text), rel=0.01)
    train = ShardSegments(tmp_path / "out")
    assert not any(train.ends(index) for index in range(len(train)))  # it does not end there
    last = len(train) - 1
    assert train.read(last, 0, train.length(last)).following == vocab.PAD
    assert content(tmp_path / "out")[1]["cut_documents"] == 1
    for batch in (next(Loader([train], batch_bytes=9000, context_bytes=9000)) for _ in range(200)):
        assert not (batch.targets == vocab.EOS).any()


def test_of_few_documents_some_are_held_out_whole(tmp_path: Path) -> None:
    """Where no hash falls into the share, as within :func:`blt.data.split`."""
    texts = [f"Item {n % 7} answer: {'AB'[n % 2]}" for n in range(500)]
    sources = tuple(
        write_lines(tmp_path / f"{name}.jsonl", part)
        for name, part in (("a", texts[:300]), ("b", texts[300:]))
    )
    out = tmp_path / "out"
    manifest = prepare(out, Options(sources, heldout=1e-4))
    heldout, train = rows(ShardSegments(out, HELDOUT)), rows(ShardSegments(out))
    parts = split([text.encode() for text in texts], 1e-4)
    assert sorted(heldout) == sorted(parts.heldout)
    assert sorted(train) == sorted(parts.train)
    assert manifest["cut_documents"] == 0
    before = content(out)
    assert prepare(out, Options(sources, heldout=1e-4)) == before[1]  # nothing to do again
    assert content(out) == before


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


def test_what_a_single_short_file_holds_out_has_no_end_in_training(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"word " * 20_000)
    manifest = prepare(tmp_path / "out", Options((str(tmp_path / "a.txt"),), heldout=0.1))
    assert manifest["cut_documents"] == 1
    assert manifest["splits"]["heldout"]["bytes"] == 10_000
    train = ShardSegments(tmp_path / "out")
    assert not any(train.ends(index) for index in range(len(train)))


@pytest.mark.parametrize("newline_reset", [False, True])
def test_stored_entropies_cut_like_live_ones(
    tmp_path: Path, entropy_folder: str, newline_reset: bool
) -> None:
    texts = [MULTILINGUAL.decode(), "a\nb\n" * 30, "one line"]
    source = write_lines(tmp_path / "a.jsonl", texts)
    options = Options((source,), 0.0, entropy_folder, newline_reset, segment_bytes=100)
    prepare(tmp_path / "out", options)
    segments = ShardSegments(tmp_path / "out")
    model, index = blt.load(entropy_folder), 0
    assert isinstance(model, blt.ByteLM)
    for text in texts:
        ids = vocab.encode(text)
        (live,) = model.document_entropies([ids], newline_reset)
        stored = []
        while True:
            piece = segments.read(index, 0, segments.length(index))
            assert piece.entropies is not None
            last = segments.ends(index)
            stored.append(torch.from_numpy(piece.entropies[: None if last else -1].copy()))
            # Part of a segment has the entropies of that part.
            middle = segments.read(index, 1, segments.length(index))
            assert (middle.entropies == piece.entropies[1:]).all()
            index += 1
            if last:
                break
        for threshold in live.quantile(torch.tensor([0.2, 0.5, 0.8])).tolist():
            config = patching.PatchingConfig(
                threshold=threshold + 1e-4, newline_reset=newline_reset
            )
            expected = patching.decide(config, ids, live)
            assert torch.equal(patching.decide(config, ids, torch.cat(stored)), expected)


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


def test_progress_is_told_within_a_long_file(tmp_path: Path) -> None:
    source, told = write_lines(tmp_path / "a.jsonl", ["x" * 2**18] * 12), []
    prepare(
        tmp_path / "out",
        Options((source,), heldout=0.0),
        on_progress=lambda done, total, outcome: told.append((done, total, outcome.bytes)),
    )
    assert told == [(0, 1, 2**20), (0, 1, 2**21), (0, 1, 3 * 2**20), (1, 1, 3 * 2**20)]


def test_on_ray_with_cuda_each_worker_takes_a_gpu(
    tmp_path: Path, sources: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []

    class Rows:
        def map(self, work: object, **resources: object) -> Rows:
            asked.append(resources)
            return self

        def iter_rows(self) -> list[object]:
            return []

    data = SimpleNamespace(from_items=lambda *_, **__: Rows())
    monkeypatch.setattr(cluster, "needed", lambda *_: data)
    task = Task(0, sources[0], sources[0], named=True)
    for device in ("cpu", "cuda"):
        assert list(cluster.on_ray(Worker(tmp_path, Options(sources)), [task], 2, device)) == []
    assert asked == [{"concurrency": 1}, {"concurrency": 1, "num_gpus": 1}]
    with pytest.raises(UserError, match="a worker on Ray has auto or cpu or cuda, not 'cuda:1'"):
        prepare(tmp_path / "out", Options(sources), ray_workers=2, device="cuda:1")
    assert not (tmp_path / "out").exists()


def test_ray_writes_the_same(tmp_path: Path, sources: tuple[str, ...], entropy_folder: str) -> None:
    ray = pytest.importorskip("ray")
    options = Options(sources, heldout=0.2, entropy_model=entropy_folder)
    prepare(tmp_path / "here", options)
    try:
        prepare(tmp_path / "ray", options, ray_workers=2)
    finally:
        ray.shutdown()  # its processes would run beside all later tests
    assert content(tmp_path / "ray") == content(tmp_path / "here")


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


def test_a_source_without_documents_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"empty\.jsonl: no text"):
        prepare(tmp_path / "out", Options((str(tmp_path / "empty.jsonl"),)))
    assert not (tmp_path / "out").exists()


def test_a_source_without_documents_beside_others_is_an_error_as_in_training(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.jsonl").write_text('{"body": "no text"}\n')
    (empty / "b.txt").write_text("")
    with pytest.raises(UserError, match=r"empty: no text in there.*a\.jsonl:1: .*out") as caught:
        prepare(tmp_path / "out", Options((*sources, str(empty))))
    assert "empty files: 1" in str(caught.value)
    assert not (tmp_path / "out" / MANIFEST).exists()


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


def test_options_that_would_do_nothing_are_refused(
    tmp_path: Path, sources: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for options, message in (
        (["--newline-reset"], "newline_reset: there is no model"),
        (["--engine", "ray", "--workers", "0"], "workers must be at least 1"),
        (["--workers", "3"], "--workers: files are prepared one after another without"),
    ):
        assert cli.main(["prepare", sources[0], "--out", str(out), *options]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


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


def test_broken_lines_are_counted_in_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{\n{"text": 3}\n')
    manifest = prepare(tmp_path / "out", Options((str(path),), heldout=0.0))
    assert (manifest["documents"], manifest["bytes"], manifest["broken"]) == (1, 4, 2)
    assert manifest["units"][0]["broken_lines"][0].startswith(f"{path}:2: ")
    with pytest.raises(UserError, match="more than 1 broken lines"):
        prepare(tmp_path / "other", Options((str(path),), max_broken=1))


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
