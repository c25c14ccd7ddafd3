"""Sources of documents: files, folders, globs, and datasets of the Hugging Face hub.

=========================  ==========================================================
``name.jsonl``             one document per line: the value of its key ``text``
``name.parquet``           one document per row: its column ``text``
any other file             one document
``*.gz``, ``*.zst``        the same, unpacked
a folder                   its files and those of its subfolders, by name
a glob                     ``books/**/*.txt``
``hf:NAME[@SPLIT]``        a dataset of the hub, or a folder in its layout, streamed
``builtin:python``         source and documentation of this Python installation
=========================  ==========================================================

In folders and globs, hidden files and what looks binary (by suffix, or by a NUL among its first
bytes, as git decides) are left out; a file that is named itself is always read.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blt.data import formats
from blt.data.formats import Broken
from blt.data.python_corpus import python_corpus
from blt.errors import UserError

PYTHON = "builtin:python"
HUB = "hf:"


@dataclass(frozen=True)
class Unit:
    """What is read in one go: a file, a dataset of the hub, or the builtin corpus."""

    name: str
    named: bool = True  # by the user, so it is read whatever it looks like

    def documents(self, broken: Broken) -> Iterator[bytes]:
        """Its documents, none of them empty, always in the same order.

        Raises:
            UserError: unreadable or damaged; names the file (and line) and the way out.
        """
        if self.name == PYTHON:
            return iter(python_corpus())
        if self.name.startswith(HUB):
            return _hub(self.name, broken)
        return formats.documents(Path(self.name), self.named, broken)


@dataclass(frozen=True)
class Corpus:
    """What was read, and what was not."""

    documents: list[bytes]  # none is empty
    broken: Broken  # lines and rows without a document

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
    broken, documents = Broken(), list[bytes]()
    for source in (os.fspath(name) for name in sources):
        found = _read_one(source, share, broken)
        if not found:
            raise UserError(f"{source}: no text in it; name a file that has some")
        documents.extend(found)
    return Corpus(documents, broken)


def units(source: str) -> Iterator[Unit]:
    """The units of one source, in a fixed order.

    Raises:
        UserError: there is no such file.
    """
    path = Path(source)
    if source == PYTHON or source.startswith(HUB):
        yield Unit(source)
    elif path.is_dir():
        yield from (Unit(str(file), named=False) for file in _walk(path))
    elif path.exists():
        yield Unit(source)
    else:
        matches = sorted(glob.glob(source, recursive=True)) if glob.has_magic(source) else []
        if not matches:
            raise UserError(f"{source}: no such file or folder; check the path")
        # "**" also names every folder
        yield from (Unit(match, named=False) for match in matches if not os.path.isdir(match))


def _read_one(source: str, max_bytes: int | None, broken: Broken) -> list[bytes]:
    documents: list[bytes] = []
    left = max_bytes
    for unit in units(source):
        for document in unit.documents(broken):
            documents.append(document if left is None else document[:left])
            if left is not None and (left := left - len(documents[-1])) == 0:
                return documents
    return documents


def _hub(name: str, broken: Broken) -> Iterator[bytes]:
    """Rows of ``hf:NAME[@SPLIT]`` as they come."""
    library = formats.needed("datasets")
    path, _, split = name.removeprefix(HUB).partition("@")
    try:
        stream = library.load_dataset(path, split=split or "train", streaming=True)
        for number, row in enumerate(stream, 1):
            yield from formats.rows(name, number, row.get(formats.TEXT), broken)
    except (library.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be read ({error}); check the name and split") from None


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, onerror=formats.unreadable):
        folders[:] = sorted(name for name in folders if not _ignored(name))
        yield from (Path(root, name) for name in sorted(names) if not _ignored(name))


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"
