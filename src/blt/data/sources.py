"""Sources of documents: files, folders, globs, and datasets of the Hugging Face hub.

========================================  =======================================================
``name.jsonl``, ``.ndjson``               one document per line: the value of its key ``text``
``name.json``                             the same, or of an array of objects; else one document
``name.parquet``, ``.pq``                 one document per row: its column ``text``
any other file                            one document
``*.gz``, ``*.zst``, ``*.xz``, ``*.bz2``  the same, unpacked
a folder                                  its files and those of its subfolders, by name
a glob                                    ``books/**/*.txt``
``hf:NAME[@SPLIT]``                       a dataset of the hub, or a folder in its layout, streamed
``builtin:python``                        source and documentation of this Python installation
========================================  =======================================================

In folders and globs, hidden files and what looks binary (by suffix, or by a NUL among its first
bytes, as git decides) are left out; a file that is named itself is always read, unless its text is
packed or hidden in a way that is not read (archives, tables, PDF), which is an error. Whatever is
left out is counted.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from blt.data import formats
from blt.data.files import REPEATED, Found, behind, below, require_file
from blt.data.left_out import Broken
from blt.data.python_corpus import python_corpus
from blt.errors import UserError, needed
from blt.texts.printable import printable

log = logging.getLogger("blt")
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
    broken: Broken  # lines, rows and files without a document
    endless: frozenset[int] = frozenset()  # which documents a limit cut, so that they have no end

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.documents))


def read(sources: Sequence[str | os.PathLike[str]], max_bytes: int | None = None) -> Corpus:
    """Read all documents of ``sources``, in a fixed order; each file once.

    What was left out, and what was read otherwise than its name says, is logged as a warning.

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
    broken, documents, endless = Broken(), list[bytes](), set[int]()
    found = Found(broken.left_out)
    for source in (os.fspath(name) for name in sources):
        texts, whole = _read_one(source, share, broken, found)
        if not texts:
            why = "; ".join([f"{source}: no text in it", *broken.remarks()])
            raise UserError(f"{why}; name a file that has some")
        documents.extend(texts)
        if not whole:
            endless.add(len(documents) - 1)
    for remark in broken.remarks():
        warn_once(remark)
    return Corpus(documents, broken, frozenset(endless))


def units(source: str, found: Found | None = None) -> Iterator[Unit]:
    """The units of one source, in a fixed order.

    Args:
        found: what other sources have named, which is not named again; takes note of what is left
            out.

    Raises:
        UserError: there is no such file, or it is a folder that holds no text.
    """
    found = found or Found()
    path = Path(source)
    if source == PYTHON or source.startswith(HUB):
        if found.new(source):
            yield Unit(source)
        else:
            found.left_out.add(REPEATED, source)
    elif not source:
        raise UserError("a source of text has no name; name a file, folder or glob")
    elif path.is_dir():
        yield from (Unit(file, named=False) for file in below(str(path), found))
    elif path.exists():
        require_file(path)
        yield from (Unit(file) for file in [source] if found.readable(file))
    elif os.path.islink(path):
        raise UserError(f"{source}: is a link to nothing; mend it or leave it out")
    else:
        if not glob.has_magic(source):
            raise UserError(f"{source}: no such file or folder; check the path")
        yield from (Unit(file, named=False) for file in behind(source, found))


def _read_one(
    source: str, max_bytes: int | None, broken: Broken, found: Found
) -> tuple[list[bytes], bool]:
    """Documents of a source, and whether the last one is whole."""
    documents: list[bytes] = []
    left = max_bytes
    for unit in units(source, found):
        for document in unit.documents(broken):
            documents.append(document if left is None else document[:left])
            if left is not None and (left := left - len(documents[-1])) == 0:
                return documents, len(documents[-1]) == len(document)
    return documents, True


def _hub(name: str, broken: Broken) -> Iterator[bytes]:
    """Rows of ``hf:NAME[@SPLIT]`` as they come."""
    library = needed("datasets", "data")
    path, _, split = name.removeprefix(HUB).partition("@")
    try:
        stream = library.load_dataset(path, split=split or "train", streaming=True)
        for number, row in enumerate(stream, 1):
            yield from formats.rows(name, number, row, broken)
    except (library.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be read ({error}); check the name and split") from None


@lru_cache(1024)
def warn_once(remark: str) -> None:
    """Log a warning, unless the same was logged before, or another process does."""
    if os.environ.get("RANK", "0") == "0":
        log.warning("%s", printable(remark))
