"""Text is read by what a file is, whatever packs it, and nothing is read as what it is not."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from blt.data import compressed, read
from blt.data.formats import documents
from blt.data.left_out import Broken
from blt.data.signatures import signature
from blt.errors import UserError

DOCUMENTS = [b"one", "zwei\n ü".encode()]
LINES = b'{"text": "one", "url": "x"}\n\n{"text": "zwei\\n \\u00fc"}\n'
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".GZ": gzip.compress,
    ".zst": zstandard.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".JSONL"])
def test_lines_of_json_are_documents_by_any_name(tmp_path: Path, suffix: str, packed: str) -> None:
    path = tmp_path / f"c4{suffix}{packed}"
    path.write_bytes(PACK[packed](LINES))
    for named in (path, tmp_path):
        assert read([named]).documents == DOCUMENTS


@given(st.sampled_from(sorted(PACK)), st.binary(min_size=1, max_size=99))
def test_packed_bytes_are_one_document(
    tmp_path_factory: pytest.TempPathFactory, packed: str, data: bytes
) -> None:
    assume(signature(data) is None)
    path = tmp_path_factory.mktemp("any") / f"a.txt{packed}"
    path.write_bytes(PACK[packed](data))
    assert read([path]).documents == [data]


@pytest.mark.parametrize("packed", [".gz", ".zst", ".xz", ".bz2"])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"a.txt{packed}"
    path.write_bytes(PACK[packed](bytes(range(256)) * 9)[:-3])
    with pytest.raises(UserError, match=rf"a\.txt{packed}: damaged"):
        read([path])


@pytest.mark.parametrize("name", ["a.pq", "a.PARQUET", "a.parquet"])
def test_parquet_is_read_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    parquet.write_table(pa.table({"text": ["one", "two"]}), tmp_path / name)
    assert read([tmp_path / name]).documents == [b"one", b"two"]


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ('[{"text": "one"},\n {"text": "two"}]', [b"one", b"two"], False),
        ('{"text": "one"}', [b"one"], False),
        ('{\n "text": "one"\n}', [b"one"], False),
        ('{"name": "x", "version": 1}', None, True),
        ('{\n "name": "x"\n}', None, True),
        ("[1, 2]", None, True),
        ("[]", None, True),
        ("no JSON", None, True),
        ("[" * 9999, None, True),
    ],
)
def test_json_is_documents_or_one_text_and_then_said(
    tmp_path: Path, text: str, expected: list[bytes] | None, said: bool
) -> None:
    (tmp_path / "a.json").write_text(text)
    corpus = read([tmp_path])
    assert corpus.documents == (expected or [text.encode()])
    assert bool(corpus.broken.as_text) == said


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a.txt", "text")
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as file:
            file.addfile(tarfile.TarInfo("a.txt"))
    return buffer.getvalue()


def table(to: Callable[..., object]) -> bytes:
    buffer = io.BytesIO()
    to(pa.table({"text": ["one"]}), buffer)
    return buffer.getvalue()


def arrow(found: pa.Table, buffer: io.BytesIO) -> None:
    with pa.ipc.new_file(buffer, found.schema) as file:
        file.write_table(found)


PARQUET = table(parquet.write_table)
REFUSED = {
    "a.zip": (archive("zip"), "unpack it into a folder"),
    "a.tar": (archive("w"), "unpack it into a folder"),
    "a.tar.gz": (archive("w:gz"), "unpack it into a folder"),
    "a.TGZ": (archive("w:gz"), "unpack it into a folder"),
    "a.7z": (b"7z\xbc\xaf\x27\x1c", "unpack it into a folder"),
    "a.jsonl.lz4": (b"\x04\x22\x4d\x18", "unpack it first"),
    "a.arrow": (table(arrow), "as Parquet or JSON lines"),
    "a.parquet.gz": (gzip.compress(PARQUET), "unpack it first"),
    "a.txt.gz.gz": (gzip.compress(gzip.compress(b"a")), "unpack it once"),
    "a.pdf": (b"%PDF-1.4", "write its text"),
    # by what is in them, whatever their names say
    "gzip.txt": (gzip.compress(b"text"), "name it NAME.gz"),
    "zstandard.jsonl": (zstandard.compress(b"text"), "name it NAME.zst"),
    "xz.txt": (lzma.compress(b"text"), "name it NAME.xz"),
    "bzip2": (bz2.compress(b"text"), "name it NAME.bz2"),
    "zip.txt": (archive("zip"), "unpack it into a folder"),
    "tar": (archive("w"), "unpack it into a folder"),
    "tar.gz": (archive("w:gz"), "unpack it first|unpack it into a folder"),
    "zip.txt.gz": (gzip.compress(archive("zip")), "unpack it into a folder"),
    "gzip.jsonl.xz": (lzma.compress(gzip.compress(b"text")), "unpack it first"),
    "parquet.txt": (PARQUET, r"name it NAME\.parquet"),
    "arrow.txt": (table(arrow), "as Parquet or JSON lines"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_text_that_cannot_be_reached_is_refused_if_named_and_counted_if_not(
    tmp_path: Path, name: str
) -> None:
    data, way_out = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.md").write_bytes(b"text")
    with pytest.raises(UserError, match=f"(?i){name}: .*({way_out})"):
        read([tmp_path / name])
    corpus = read([tmp_path])
    assert corpus.documents == [b"text"]
    assert sum(corpus.broken.left_out.counts.values()) == 1
    assert name in str(corpus.broken.left_out)


@pytest.mark.parametrize("begins", [b"BZh9 is no bzip2", b"PAR1S", b"7zip", b"Rar", b"%PDF"])
def test_text_that_begins_almost_like_something_else_is_text(tmp_path: Path, begins: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(begins)
    assert read([tmp_path]).documents == [begins]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "a.txt.bz2", "a.txt.zst"])
def test_a_packed_name_on_something_else_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"plain text")
    for named in (tmp_path / name, tmp_path):
        with pytest.raises(UserError, match=f"{name}: damaged .*it begins as something else"):
            read([named])


def test_a_named_file_that_looks_binary_is_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"\x7fELF\0")
    corpus = read([tmp_path / "blob"])
    assert corpus.documents == [b"\x7fELF\0"]
    assert corpus.broken.as_text.counts == {"binary files": 1}


@pytest.mark.parametrize("packed", [".gz", ".zst", ".xz", ".bz2"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json"])
def test_what_unpacks_to_more_than_a_document_may_have_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, packed: str
) -> None:
    monkeypatch.setattr(compressed, "MAX_UNPACKED", 2**20)
    path = tmp_path / f"bomb{suffix}{packed}"
    path.write_bytes(PACK[packed](bytes(2**22)))
    with pytest.raises(UserError, match=rf"bomb{suffix}{packed}: unpacks to .* more than 0\.0 GB"):
        read([path])
    path = tmp_path / f"long.jsonl{packed}"  # many documents may be longer together
    path.write_bytes(PACK[packed](json.dumps({"text": "x" * 1000}).encode() + b"\n") * 1500)
    assert len(read([path]).documents) == 1500


def test_a_document_that_does_not_fit_in_memory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text("[1]")

    def full(_: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(json, "loads", full)
    with pytest.raises(UserError, match=r"a\.json: .* does not fit in memory; split it"):
        list(documents(tmp_path / "a.json", True, Broken()))


def test_lines_without_text_say_which_keys_they_have(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "one", "id": 1}\n' * 3)
    message = r"no text in it; .*a\.jsonl:1: no 'text' among its keys, which are content, id"
    with pytest.raises(UserError, match=message):
        read([path])
