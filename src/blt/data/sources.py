"""Documents from files, folders and globs. Any bytes are valid text, so nothing is decoded.

=====================  =============================================================
``name.jsonl``         one document per line: the value of its key ``text``
any other file         one document
``*.gz``               the same, unpacked
a folder               its files and those of its subfolders, by name
a glob                 ``books/**/*.txt``
``builtin:python``     source and documentation of this Python installation
=====================  =============================================================

In folders and globs, hidden files and what looks binary (by suffix, or by a NUL among its first
bytes, as git decides) are left out; a file that is named itself is always read.
"""

from __future__ import annotations

import glob
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blt.data.python_corpus import python_corpus
from blt.errors import UserError
from blt.vocab import to_bytes

PYTHON = "builtin:python"
MAX_BROKEN_LINES = 100  # more than this, and the file is not what its name says
SNIFF_BYTES = 8000
BINARY_SUFFIXES = (
    *(".7z", ".a", ".bz2", ".jar", ".rar", ".tar", ".tgz", ".whl", ".xz", ".zip", ".zst"),
    *(".bin", ".class", ".dll", ".dylib", ".exe", ".o", ".pyc", ".so"),
    *(".bmp", ".gif", ".ico", ".jpeg", ".jpg", ".pdf", ".png", ".ttf", ".webp", ".woff", ".woff2"),
    *(".avi", ".mkv", ".mov", ".mp3", ".mp4", ".ogg", ".wav"),
    *(".npy", ".npz", ".parquet", ".pickle", ".pkl", ".pt", ".pth", ".safetensors", ".sqlite"),
)


@dataclass(frozen=True)
class Corpus:
    """What was read, and what was not."""

    documents: list[bytes]  # none is empty
    broken: list[str]  # skipped lines of JSONL files, as "file:line: why"

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.documents))


def read(sources: Sequence[str | os.PathLike[str]], max_bytes: int | None = None) -> Corpus:
    """Read all documents of ``sources``, in a fixed order.

    Args:
        sources: files, folders, globs, or ``builtin:python``; relative to the working directory.
        max_bytes: at most so many bytes, shared evenly among the sources; the document that
            passes the limit is cut there.

    Raises:
        UserError: a missing, unreadable or damaged source, one without text, or too many broken
            lines; names the file (and line) and the way out.
    """
    if not sources:
        raise UserError("no text to read: name at least one file, folder or glob")
    share = None if max_bytes is None else max(1, max_bytes // len(sources))
    corpus = Corpus([], [])
    for source in (os.fspath(name) for name in sources):
        found = _read_one(source, share, corpus.broken)
        if not found:
            raise UserError(f"{source}: no text in it; name a file that has some")
        corpus.documents.extend(found)
    return corpus


def _read_one(source: str, max_bytes: int | None, broken: list[str]) -> list[bytes]:
    if source == PYTHON:
        return python_corpus(max_bytes)
    documents: list[bytes] = []
    left = max_bytes
    for path, named in _files(source):
        for document in _documents(path, named, broken):
            documents.append(document if left is None else document[:left])
            if left is not None and (left := left - len(documents[-1])) == 0:
                return documents
    return documents


def _files(source: str) -> Iterator[tuple[Path, bool]]:
    """(file, was it named itself) of one source."""
    path = Path(source)
    if path.is_dir():
        yield from ((file, False) for file in _walk(path))
    elif path.exists():
        yield path, True
    else:
        matches = sorted(glob.glob(source, recursive=True)) if glob.has_magic(source) else []
        if not matches:
            raise UserError(f"{source}: no such file or folder; check the path")
        for match in map(Path, matches):
            if not match.is_dir():  # "**" also names every folder
                yield match, False


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not _ignored(name))
        yield from (Path(root, name) for name in sorted(names) if not _ignored(name))


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions")


def _documents(path: Path, named: bool, broken: list[str]) -> Iterator[bytes]:
    """Documents of one file, without empty ones."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if not path.is_file() or (not named and plain.suffix.lower() in BINARY_SUFFIXES):
        return
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            if plain.suffix == ".jsonl":
                yield from _lines(path, file, broken)  # type: ignore[arg-type]
                return
            data = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip ({error}); restore it or leave it out") from None
    except OSError as error:
        _unreadable(error)
    if data and (named or b"\0" not in data[:SNIFF_BYTES]):
        yield data


def _lines(path: Path, lines: Iterator[bytes], broken: list[str]) -> Iterator[bytes]:
    broken_here = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = _text_of(line)
        except (ValueError, RecursionError) as error:
            broken_here += 1
            broken.append(f"{path}:{number}: {error}")
            if broken_here > MAX_BROKEN_LINES:
                raise UserError(
                    f"{broken[-1]}; that is more than {MAX_BROKEN_LINES} broken lines: every line "
                    'must be a JSON object like {"text": "..."}'
                ) from None
            continue
        if text:
            yield text


def _text_of(line: bytes) -> bytes:
    """The document of one line; any ValueError says what is broken."""
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got {type(data).__name__}")
    text = data.get("text")
    if not isinstance(text, str):
        raise ValueError(f"key 'text' must be a string, got {type(text).__name__}")
    return to_bytes(text)
