"""Files come out of packages whole, each once, and none that holds what evaluates."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.errors import UserError
from blt.evals.overlap import blocks_of
from tools.texts.against import letters
from tools.texts.fetch import Source, command, sources
from tools.texts.novels import novels
from tools.texts.whole import LIST, MOST, build
from tools.texts.written import read

SECRET = "This sentence stands in a text that models are asked about, too."
CODE = {f"p/m{n}.py": f"# module {n}\n" + f"value_{n} = compute({n})\n" * 30 for n in range(3)}
NONE = blocks_of([])


def _package(tmp_path: Path, inside: dict[str, bytes], **more: object) -> Source:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name, content in {"p.dist-info/LICENSE": b"MIT", **inside}.items():
            packed.writestr(name, content)
    (tmp_path / "packages").mkdir(exist_ok=True)
    (tmp_path / "packages" / "p-1.whl").write_bytes(data.getvalue())
    given: dict[str, object] = {
        "client": "pip",
        "package": "p",
        "version": "1",
        "file": "p-1.whl",
        "sha256": hashlib.sha256(data.getvalue()).hexdigest(),
        "licence": "MIT",
        "licence_file": "dist-info/LICENSE",
        "attribution": "its authors",
        "files": [{"pattern": r"\.py$", "language": "python", "reader": "whole"}],
    }
    return Source(name="program", **(given | more))  # type: ignore[arg-type]


def _books(*books: list[bytes]) -> bytes:
    """Vectors of strings as R keeps them in the data of a package."""

    def vector(lines: list[bytes]) -> bytes:
        head = b"X\n" + struct.pack(">III", 3, 0x40201, 0x30500) + struct.pack(">I", 5) + b"UTF-8"
        strings = (struct.pack(">II", 0x40009, len(line)) + line for line in lines)
        return head + struct.pack(">II", 16, len(lines)) + b"".join(strings)

    values = map(vector, books)
    return b"".join(struct.pack(">I", len(value)) + zlib.compress(value) for value in values)


def test_files_come_out_as_they_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    source = _package(tmp_path, {name: text.encode() for name, text in CODE.items()})
    record = build(tmp_path, [source], NONE)["program"]
    assert read(tmp_path / "python" / "program.jsonl.gz") == list(CODE.values())
    assert record["documents"] == 3
    assert record["bytes"] == sum(len(text.encode()) for text in CODE.values())
    assert (tmp_path / "licences" / "program.txt").read_text() == "MIT"
    assert (
        "| program: p 1 (pip) | python | MIT | its authors | 3 |"
        in (tmp_path / "SOURCES.md").read_text()
    )
    first = (tmp_path / "python" / "program.jsonl.gz").read_bytes()
    build(tmp_path, [source], NONE)
    assert (tmp_path / "python" / "program.jsonl.gz").read_bytes() == first


def test_what_is_left_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    good = CODE["p/m0.py"].encode() + b"#" + b"=" * 80
    files = {
        "a.py": good,
        "again.py": good,
        "asked.py": good + SECRET.encode(),
        "asked_across_lines.py": good + SECRET.replace(" text ", " text\n").encode(),
        "latin.py": good + "é".encode("latin-1"),
        "long.py": good * (MOST // len(good) + 1),
        "short.py": b"pass\n",
        "of_windows.py": CODE["p/m1.py"].replace("\n", "\r\n").encode(),
    }
    asked = [SECRET, SECRET.replace(" text ", " text\n"), "=" * 80]
    against = blocks_of([letters(text) for text in asked])
    record = build(tmp_path, [_package(tmp_path, files)], against)["program"]
    assert record["left_out"] == {
        "holds what evaluates": 2,
        "long": 1,
        "not in UTF-8": 1,
        "short": 1,
        "there already": 1,
    }
    texts = read(tmp_path / "python" / "program.jsonl.gz")
    assert texts == [good.decode(), CODE["p/m1.py"]]


def test_a_package_without_such_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do the patterns of program fit"):
        build(tmp_path, [_package(tmp_path, {"a.txt": b"x" * 1000})], NONE)


@pytest.mark.parametrize("data", [_books([b"ONE", b"two"])[:-9], _books([])])
def test_a_damaged_file_is_refused_by_name_and_the_old_text_stays(
    tmp_path: Path, data: bytes
) -> None:
    build(tmp_path, [_package(tmp_path, {"a.py": CODE["p/m0.py"].encode()})], NONE)
    of_books = [
        {"pattern": r"\.py$", "language": "python", "reader": "whole"},
        {"pattern": r"\.rdb$", "language": "books", "reader": "novels"},
    ]
    files = {"a.py": CODE["p/m1.py"].encode(), "d.rdb": data}
    with pytest.raises(UserError, match=r"d\.rdb: not read as novels"):
        build(tmp_path, [_package(tmp_path, files, files=of_books)], NONE)
    assert read(tmp_path / "python" / "program.jsonl.gz") == [CODE["p/m0.py"]]


def test_novels_are_read_by_their_titles_and_skipped_by_them(tmp_path: Path) -> None:
    lines = [b"", b"A line of a page that goes", b"on in the next.", b""] * 20
    lines *= MOST // 1000
    data = _books([b"ONE", *lines], [b"TWO", *lines, b"The end."])
    of_books = [{"pattern": r"\.rdb$", "language": "books", "reader": "novels"}]
    source = _package(tmp_path, {"d.rdb": data}, files=of_books, skip=["ONE"])
    build(tmp_path, [source], NONE)
    paragraphs = ["A line of a page that goes on in the next."] * (20 * (MOST // 1000))
    (text,) = read(tmp_path / "books" / "program.jsonl.gz")
    assert text.split("\n\n") == ["TWO", *paragraphs, "The end."]


LINES = st.text("abc é", max_size=20).map(str.encode)


@given(st.lists(st.lists(LINES, min_size=1), max_size=4))
def test_words_of_novels_are_those_that_were_written(books: list[list[bytes]]) -> None:
    found = list(novels(_books(*books)))
    assert [title.encode() for title, _ in found] == [book[0] for book in books]
    assert [text.encode().split() for _, text in found] == [
        b"\n".join(book).split() for book in books
    ]


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda data: data[:4] + b"no zlib" + data[4:], "byte 0: no compressed value"),
        (lambda _: b"\0\0\0\1" + zlib.compress(bytes(40)), "no vector of strings"),
    ],
)
def test_another_file_than_books_is_refused(damage: object, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        list(novels(damage(_books([b"ONE", b"two"]))))  # type: ignore[operator]


def test_the_list_of_whole_files_names_hashes_kinds_and_readers() -> None:
    known = sources(LIST)
    assert len({source.file for source in known}) == len(known) > 20
    for source in known:
        assert len(source.sha256) == 64
        assert source.version in " ".join(command(source))
        for of in source.files:
            assert of["language"] in ("books", "python", "technical")
            assert of["reader"] in ("whole", "novels")
