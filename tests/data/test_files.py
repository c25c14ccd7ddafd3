"""Every file is read once, and whatever is left out is counted."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt import cli
from blt.data import read
from blt.data.prepare import Options, prepare
from blt.data.text import open_sources, weighted_sources
from blt.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three texts, and links to and fro."""
    root = tmp_path / "books"
    (root / "inner").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "inner/c.txt"):
        (root / name).write_text(name)
    return root


def counts(corpus: object) -> dict[str, int]:
    return corpus.broken.left_out.counts  # type: ignore[attr-defined]


@pytest.mark.parametrize("source", ["", "/**/*.txt", "/**", "/**/**/*"])
def test_a_loop_of_links_repeats_nothing(folder: Path, source: str) -> None:
    for link in ("loop", "again", "inner/back", "inner/up"):
        os.symlink("../.." if link.endswith("up") else folder, folder / link)
    (folder.parent / "not named.txt").write_text("outside")
    corpus = read([f"{folder}{source}"])
    assert sorted(corpus.documents) == [b"a.txt", b"b.txt", b"inner/c.txt"]
    assert counts(corpus)["links to folders above or read before"] >= 4


@pytest.mark.parametrize("source", ["", "/**/*", "/*"])
def test_links_are_followed_and_dangling_ones_counted(folder: Path, source: str) -> None:
    other = folder.parent / "other"
    other.mkdir()
    (other / "d.txt").write_text("d")
    os.symlink(other, folder / "to a folder")
    os.symlink(other / "d.txt", folder / "to a file")
    os.symlink("nowhere", folder / "dangling")
    os.symlink("itself", folder / "itself")
    os.link(folder / "a.txt", folder / "hard.txt")
    corpus = read([f"{folder}{source}"])
    inner = [] if source == "/*" else [b"inner/c.txt"]
    assert sorted(corpus.documents) == [b"a.txt", b"b.txt", b"d", *inner]
    assert counts(corpus)["dangling links"] == 2
    assert counts(corpus)["files named before"] == (1 if source == "/*" else 2)
    with pytest.raises(UserError, match="dangling: is a link to nothing"):
        read([folder / "dangling"])


@given(st.sets(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=5), st.data())
def test_any_tangle_of_links_gives_each_file_once(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("tangle")
    folders = [root]
    for name in sorted(names):
        folder = data.draw(st.sampled_from(folders)) / name
        folder.mkdir()
        (folder / "text").write_text(str(folder))
        folders.append(folder)
    for number in range(data.draw(st.integers(0, 5))):
        at, to = data.draw(st.sampled_from(folders)), data.draw(st.sampled_from(folders))
        os.symlink(to, at / f"link{number}")
    expected = sorted(str(folder).encode() for folder in folders[1:])
    assert sorted(read([root]).documents) == expected
    assert sorted(read([f"{root}/**/text"]).documents) == expected


def test_whatever_is_left_out_is_counted_named_and_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (".git/config", ".hidden", "__pycache__/x.txt", "a.png", "z/blob"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x\0")
    for name in ("empty.txt", "lines.jsonl"):
        (folder / name).touch()
    os.mkfifo(folder / "pipe")
    with caplog.at_level(logging.WARNING):
        corpus = read([folder])
    assert counts(corpus) == {
        "hidden": 3,
        "binary files": 2,
        "empty files": 2,
        "special files": 1,
    }
    for name in (".git", "a.png", "empty.txt", "pipe"):
        assert str(folder / name) in caplog.text
    with pytest.raises(UserError, match="is not a regular file"):
        read([folder / "pipe"])


def test_folders_that_a_glob_matches_are_counted(folder: Path) -> None:
    corpus = read([f"{folder}/*"])
    assert corpus.documents == [b"a.txt", b"b.txt"]
    assert counts(corpus) == {"folders": 1}


def test_a_file_that_two_sources_name_is_read_once(folder: Path) -> None:
    corpus = read([folder / "b.txt", folder])
    assert sorted(corpus.documents) == [b"a.txt", b"b.txt", b"inner/c.txt"]
    assert counts(corpus) == {"files named before": 1}
    for twice in ([folder, folder / "b.txt"], [folder / "a.txt"] * 2, ["builtin:python"] * 2):
        with pytest.raises(UserError, match=r"no text in it.*named before"):
            read(twice)
    with pytest.raises(UserError, match=r"no text in it.*named before"):
        prepare(folder.parent / "out", Options((str(folder), str(folder / "b.txt"))))


def test_a_source_without_a_name_is_not_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert sorted(read(["."]).documents) == [b"a.txt", b"b.txt", b"inner/c.txt"]
    with pytest.raises(UserError, match="has no name"):
        read([""])


WRITTEN = {
    "left unfinished by blt prepare": ("plan.json", "units/00000/unit.json"),
    "written by blt prepare": ("plan.json", "manifest.json", "units/00000/unit.json"),
    "a model": ("config.json", "model.safetensors"),
    "a run of blt train": ("recipe.toml", "metrics.jsonl"),
    "a study": ("plan.json", "results.jsonl"),
    "saved by datasets' save_to_disk": ("dataset_info.json", "state.json", "data-0.arrow"),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_folders_that_programs_wrote_are_no_text(folder: Path, what: str) -> None:
    written = folder / "written"
    for name in WRITTEN[what]:
        (written / name).parent.mkdir(parents=True, exist_ok=True)
        (written / name).write_text(json.dumps({"text": "not to be read"}))
    with pytest.raises(UserError, match=f"written: is {what}, not text; "):
        read([written])
    for source in (folder, f"{folder}/**/*"):
        corpus = read([source])
        assert sorted(corpus.documents) == [b"a.txt", b"b.txt", b"inner/c.txt"]
        assert str(written) in str(corpus.broken.left_out)


def test_text_that_blt_prepare_left_unfinished_is_not_trained_on(folder: Path) -> None:
    out = folder.parent / "out"
    prepare(out, Options((str(folder),), heldout=0.0))
    (out / "manifest.json").unlink()
    options = {"heldout": 0.1, "max_bytes": None, "context_bytes": 99, "heldout_bytes": 99}
    with pytest.raises(UserError, match=r"run blt prepare again .* it goes on where it was"):
        open_sources([str(out)], **options)
    prepare(out, Options((str(folder),), heldout=0.0))
    assert open_sources([str(out)], **options)[0].train.num_bytes == 21


def test_blt_prepare_shows_what_it_left_out_and_cut(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_text("x")
    (folder / "a.json").write_text("[1]")
    (folder / "long.txt").write_bytes(b"word " * 2**19)
    assert cli.main(["prepare", str(folder), "--out", str(folder.parent / "out")]) == 0
    out = capsys.readouterr().out
    assert f"left out: binary files: 1 ({folder}/a.png)" in out
    assert f"read as one text: JSON without documents: 1 ({folder}/a.json)" in out
    assert "the end of 1 document is held out" in out


def test_a_prepared_folder_is_named_once(folder: Path) -> None:
    out = folder.parent / "out"
    prepare(out, Options((str(folder),), heldout=0.0))
    options = {"heldout": 0.1, "max_bytes": None, "context_bytes": 99, "heldout_bytes": 99}
    with pytest.raises(UserError, match="is named twice"):
        open_sources([str(out), f"{out}/"], **options)


def test_what_one_source_holds_out_and_another_trains_on_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"text {number}")
    (small := folder.parent / "small.jsonl").write_text(
        "".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(3))
    )
    options = {"heldout": 0.05, "max_bytes": None, "context_bytes": 99, "heldout_bytes": 99}
    weighted_sources([str(folder)], **options)
    assert "trains on" not in caplog.text
    weighted_sources([str(folder), str(small)], **options)
    assert f"{folder}: trains on 1 of the documents that {small} holds out" in caplog.text


def test_what_prepared_text_holds_out_and_plain_text_trains_on_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"text {number}")
    out = folder.parent / "out"
    prepare(out, Options((str(folder),), heldout=0.5))
    options = {"heldout": 0.05, "max_bytes": None, "context_bytes": 99, "heldout_bytes": 9999}
    open_sources([str(out), str(folder)], **options)
    assert f"of the documents that {out} holds out; name each text in one source" in caplog.text


def test_a_folder_of_text_may_have_a_manifest_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "an extension of a browser"}')
    (tmp_path / "code.js").write_text("function one() { return 1; } " * 40)
    options = {"heldout": 0.1, "max_bytes": None, "context_bytes": 99, "heldout_bytes": 99}
    (source,) = open_sources([str(tmp_path)], **options)
    assert source.train.num_bytes > 500


def test_the_manifest_and_the_metrics_count_what_was_left_out(folder: Path) -> None:
    (folder / "a.png").write_text("x")
    (folder / "a.json").write_text("[1]")
    manifest = prepare(folder.parent / "out", Options((str(folder),), heldout=0.0))
    facts = open_sources(
        [str(folder)], heldout=0.3, max_bytes=None, context_bytes=99, heldout_bytes=99
    )[0].facts
    for found in (manifest, facts):
        assert found["left_out"] == {"binary files": {"count": 1, "first": [str(folder / "a.png")]}}
        assert found["read_as_one_text"]["JSON without documents"]["count"] == 1
