"""Prepared shards hold all text once, cut like live text, and say what was left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import cli, patching, vocab
from blt.data import Loader, cluster, split
from blt.data.manifest import MANIFEST
from blt.data.prepare import Options, prepare
from blt.data.shards import HELDOUT, ShardSegments
from blt.data.worker import Task, Worker
from blt.errors import UserError
from prepared import content, rows, write_lines
from texts import MULTILINGUAL


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
    ray.init(num_cpus=2, include_dashboard=False)  # nobody looks at it
    try:
        prepare(tmp_path / "ray", options, ray_workers=2)
    finally:
        ray.shutdown()  # its processes would run beside all later tests
    assert content(tmp_path / "ray") == content(tmp_path / "here")


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


def test_broken_lines_are_counted_in_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{\n{"text": 3}\n')
    manifest = prepare(tmp_path / "out", Options((str(path),), heldout=0.0))
    assert (manifest["documents"], manifest["bytes"], manifest["broken"]) == (1, 4, 2)
    assert manifest["units"][0]["broken_lines"][0].startswith(f"{path}:2: ")
    with pytest.raises(UserError, match="more than 1 broken lines"):
        prepare(tmp_path / "other", Options((str(path),), max_broken=1))
