"""Documents are read exactly, and whatever cannot be read is named."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from blt.data import python_corpus, read
from blt.data.files import Found
from blt.data.form import SourceConfig
from blt.data.left_out import MAX_BROKEN_LINES
from blt.data.prepare import Options
from blt.data.sources import units
from blt.errors import UserError
from blt.train import DataConfig


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def test_a_file_is_one_document_byte_for_byte(tmp_path: Path) -> None:
    data = bytes(range(256)) * 3
    (tmp_path / "any.txt").write_bytes(data)
    assert read([tmp_path / "any.txt"]).documents == [data]


def test_jsonl_is_one_document_per_line_packed_or_not(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines("one", "", "zwei\n ü") + b"\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines("three")))
    corpus = read([tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"])
    assert corpus.documents == [b"one", "zwei\n ü".encode(), b"three"]
    assert corpus.broken.count == 0


def test_zstandard_is_unpacked_frame_after_frame(tmp_path: Path) -> None:
    packed = zstandard.compress(lines("one") * 50_000) + zstandard.compress(lines("two"))
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert read([tmp_path]).documents == [b"one"] * 50_000 + [b"two"]


@pytest.mark.parametrize("number", [0x184D2A50, 0x184D2A5F])
def test_zstandard_may_have_frames_to_skip(tmp_path: Path, number: int) -> None:
    """pzstd begins each file with one."""
    skipped = struct.pack("<II", number, 9000) + bytes(9000)
    packed = skipped + zstandard.compress(lines("one")) + skipped + zstandard.compress(lines("two"))
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(packed)
    assert read([path]).documents == [b"one", b"two"]
    path.write_bytes(packed[:8000])
    with pytest.raises(UserError, match="damaged Zstandard"):
        read([path])
    path.rename(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"is Zstandard, .*; name it NAME\.zst"):
        read([tmp_path / "a.txt"])


@pytest.mark.parametrize("log", [28, 31])
def test_zstandard_may_have_a_long_window(tmp_path: Path, log: int) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(wide(lines("one"), log))
    assert read([path]).documents == [b"one"]


def test_a_window_that_is_too_long_is_not_called_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    packed = bytearray(wide(lines("one"), 31))
    packed[WINDOW_AT] += 1 << 3  # the next power of two
    path.write_bytes(packed)
    with pytest.raises(UserError, match=r"window of more than 2\.1 GB") as caught:
        read([path])
    assert "damaged" not in str(caught.value)
    assert "`zstd --long=31`" in str(caught.value)


WINDOW_AT = 5  # behind the frame's four first bytes and its descriptor


def wide(data: bytes, log: int) -> bytes:
    """Packed as a stream is, with a window of 2**log bytes."""
    options = zstandard.ZstdCompressionParameters.from_level(1, window_log=log, hash_log=10)
    stream = zstandard.ZstdCompressor(compression_params=options).compressobj()
    return bytes(stream.compress(data) + stream.flush())


def test_parquet_is_one_document_per_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": range(4), "text": ["one", "", None, "zwei\0ü"]})
    parquet.write_table(table, path)
    corpus = read([tmp_path])
    assert corpus.documents == [b"one", "zwei\0ü".encode()]
    assert corpus.broken.named == [f"{path}:3: 'text' must be a string, got NoneType"]
    parquet.write_table(table.drop_columns("text"), path)
    with pytest.raises(UserError, match=r"a\.parquet: no column 'text'; its columns are id"):
        read([tmp_path])


def test_datasets_in_the_layout_of_the_hub_are_streamed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        parquet.write_table(pa.table({"text": [split, "ü"]}), tmp_path / f"data/{split}-0.parquet")
    assert read([f"hf:{tmp_path}"]).documents == [b"train", "ü".encode()]
    assert read([f"hf:{tmp_path}@test"]).documents == [b"test", "ü".encode()]
    with pytest.raises(UserError, match=r"hf:.*cannot be read"):
        read([f"hf:{tmp_path}@none"])


def test_an_error_of_the_hub_without_words_is_told_by_its_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError

    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"^hf:a/b: cannot be read \(ConnectionError\); check"):
        read(["hf:a/b"])


def test_two_configurations_of_one_dataset_are_two_sources() -> None:
    of = [SourceConfig("hf:owner/set", config=config, split="test") for config in ("en", "de")]
    found = Found()
    names = [unit.name for given in of for unit in units(given, found)]
    assert names == ["hf:owner/set/en@test", "hf:owner/set/de@test"]
    assert not [*units(of[0], found)]  # the same again


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"text"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match=r"pip install '\.\[data\]'"):
        read([tmp_path])


def test_a_folder_gives_its_text_in_a_fixed_order_and_leaves_out_what_is_binary(
    tmp_path: Path,
) -> None:
    for name, data in {
        "b.md": b"b",
        "a/z.py": b"z",
        "a/c.txt.gz": gzip.compress(b"c"),
        "a/d.rst": b"",
        "image.png": b"text, but called an image",
        "blob": b"\x7fELF\0\0",
        ".git/config": b"hidden",
        "__pycache__/x.txt": b"hidden",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert read([tmp_path]).documents == [b"b", b"c", b"z"]
    assert read([f"{tmp_path}/**/*.py"]).documents == [b"z"]
    assert read([tmp_path / "blob"]).documents == [b"\x7fELF\0\0"]  # named itself


def test_a_limit_is_shared_among_the_sources_and_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a" * 100)
    (tmp_path / "b.txt").write_bytes(b"b" * 100)
    sources = [tmp_path / "a.txt", tmp_path / "b.txt"]
    corpus = read(sources, max_bytes=20)
    assert corpus.documents == [b"a" * 10, b"b" * 10]
    assert corpus.endless == {0, 1}
    assert read(sources, max_bytes=200).endless == set()


def test_broken_lines_are_named_and_skipped_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    broken = [b"{", b'{"text": 3}', b"[]", b'{"other": "x"}', b'{"text": "\\ud800"}', b"\xff"]
    path.write_bytes(lines("good") + b"\n".join(broken) + b"\n" + lines("also good"))
    corpus = read([path])
    assert corpus.documents == [b"good", b"also good"]
    assert [line.split(": ")[0] for line in corpus.broken.named] == [
        f"{path}:{n}" for n in range(2, 8)
    ]

    path.write_bytes(lines("good") + b"{\n" * (MAX_BROKEN_LINES + 1))
    with pytest.raises(UserError, match=rf"a\.jsonl:{MAX_BROKEN_LINES + 2}: .*more than"):
        read([path])


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_lines_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    path.write_bytes(lines("good") + b"\n".join(data))
    corpus = read([path])
    assert corpus.documents[0] == b"good"
    filled = [line for line in b"\n".join(data).split(b"\n") if line.strip()]
    assert len(corpus.documents) - 1 + corpus.broken.count == len(filled)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("missing.txt", None, "no such file"),
        ("*.none", None, "no such file"),
        ("empty.txt", b"", "no text in it"),
        ("empty.jsonl", b"\n\n", "no text in it"),
        ("damaged.txt.gz", b"not gzip", "damaged gzip"),
        ("cut.txt.gz", gzip.compress(b"some text" * 99, mtime=0)[:-9], "damaged gzip"),
        ("damaged.txt.zst", b"not Zstandard", "damaged Zstandard"),
        ("cut.txt.zst", zstandard.compress(b"some text" * 99)[:-3], "damaged Zstandard"),
        ("damaged.parquet", b"not Parquet", "damaged Parquet"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read([tmp_path / name])
    assert str(tmp_path / name) in str(caught.value)


def test_no_sources_and_empty_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name at least one"):
        read([])
    with pytest.raises(UserError, match="no text in it"):
        read([tmp_path])


def test_every_python_has_its_own_corpus() -> None:
    documents = python_corpus(400_000)
    assert sum(map(len, documents)) == 400_000
    assert all(documents)
    assert documents == python_corpus(400_000)
    assert b"".join(documents).startswith(b"".join(python_corpus(100_000)))
    assert read(["builtin:python"], 400_000).documents == documents


def test_a_single_name_is_not_taken_for_its_letters(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("some text")
    for name in (str(path), path):
        for take in (read, DataConfig, Options):
            with pytest.raises(UserError, match="is a single name; give a list"):
                take(name)  # type: ignore[operator]
    assert read([path]).documents == [b"some text"]
