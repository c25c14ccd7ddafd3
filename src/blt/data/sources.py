"""Sources of documents: files, folders, globs, and datasets of the Hugging Face hub.

========================================  =======================================================
``name.jsonl``, ``.ndjson``               one document per line: the value of its key ``text``
``name.json``                             the same, or of an array of objects; else one document
``name.parquet``, ``.pq``                 one document per row: its column ``text``
any other file                            one document
``*.gz``, ``*.zst``, ``*.xz``, ``*.bz2``  the same, unpacked
a folder                                  its files and those of its subfolders, by name
a glob                                    ``books/**/*.txt``
``hf:NAME[/CONFIG][@SPLIT]``              a dataset of the hub, or a folder in its layout, streamed
``builtin:python``                        source and documentation of this Python installation
========================================  =======================================================

In folders and globs, hidden files and what looks binary (by suffix, or by a NUL among its first
bytes, as git decides) are left out; a file that is named itself is always read, unless its text is
packed or hidden in a way that is not read (archives, tables, PDF), which is an error. Whatever is
left out is counted. A source may be a table that says which keys of its rows are read, and how
(:class:`blt.data.form.SourceConfig`).
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from blt.chat import ChatTemplate
from blt.data import formats
from blt.data.files import REPEATED, Found, behind, below, require_file
from blt.data.form import HUB, AnySource, Form, Learn, SourceConfig, path_of
from blt.data.formats import PLAIN
from blt.data.left_out import MAX_BROKEN_LINES, Broken
from blt.data.python_corpus import python_corpus
from blt.errors import UserError, needed, require, require_list
from blt.texts.printable import printable

log = logging.getLogger("blt")
PYTHON = "builtin:python"


@dataclass(frozen=True)
class Unit:
    """What is read in one go: a file, a dataset of the hub, or the builtin corpus."""

    name: str
    named: bool = True  # by the user, so it is read whatever it looks like
    form: Form = PLAIN  # what its rows mean

    def documents(self, broken: Broken) -> Iterator[bytes]:
        """Its documents, none of them empty, always in the same order.

        Raises:
            UserError: unreadable or damaged; names the file (and line) and the way out.
        """
        if self.name == PYTHON:
            return iter(python_corpus())
        if self.name.startswith(HUB):
            return _hub(self.name, broken, self.form)
        return formats.documents(Path(self.name), self.named, broken, self.form)


@dataclass(frozen=True)
class Corpus:
    """What was read, and what was not."""

    documents: list[bytes]  # none is empty
    broken: Broken  # lines, rows and files without a document
    endless: frozenset[int] = frozenset()  # which documents a limit cut, so that they have no end

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.documents))


def read(
    sources: Sequence[AnySource | os.PathLike[str]],
    max_bytes: int | None = None,
    *,
    learn: Learn = "completions",
    max_broken: int = MAX_BROKEN_LINES,
    template: ChatTemplate | None = None,
) -> Corpus:
    """Read all documents of ``sources``, in a fixed order; each file once.

    What was left out, and what was read otherwise than its name says, is logged as a warning.

    Args:
        sources: files, folders, globs, or ``builtin:python``, relative to the working directory; or
            tables that say how they are read.
        max_bytes: at most so many bytes, shared evenly among the sources; the document that
            passes the limit is cut there.
        learn: all of conversations, and of prompts with completions; or completions, and what the
            assistant says. Other documents are learned whole.
        max_broken: so many lines of a file are left out before it is an error.
        template: how conversations are laid out; None: as the default template does.

    Raises:
        UserError: a missing, unreadable or damaged source, one without text, keys that no row of a
            file has, or too many broken lines; names the file (and line) and the way out.
    """
    if not sources:
        raise UserError("no text to read: name at least one file, folder or glob")
    require_list("sources", sources)
    share = None if max_bytes is None else max(1, max_bytes // len(sources))
    broken, documents, endless = Broken(max_broken), list[bytes](), set[int]()
    found = Found(broken.left_out)
    for source in sources:
        given = source if isinstance(source, SourceConfig) else os.fspath(source)
        parts = units(given, found, Form(given, learn, template))
        texts, whole = _read_one(parts, share, broken)
        if not texts:
            why = "; ".join([f"{path_of(given)}: no text in it", *broken.remarks()])
            raise UserError(f"{why}; name a file that has some")
        documents.extend(texts)
        if not whole:
            endless.add(len(documents) - 1)
    for remark in broken.remarks():
        warn_once(remark)
    return Corpus(documents, broken, frozenset(endless))


def units(given: AnySource, found: Found | None = None, form: Form | None = None) -> Iterator[Unit]:
    """The units of one source, in a fixed order.

    Args:
        found: what other sources have named, which is not named again; takes note of what is left
            out.
        form: what its rows mean.

    Raises:
        UserError: there is no such file, or it is a folder that holds no text.
    """
    found, form = found or Found(), form or Form(given)
    source, takes_all = path_of(given), form.takes_all
    path = Path(source)
    if source == PYTHON or source.startswith(HUB):
        name = hub_name(given)
        if found.new(name):
            yield Unit(name, form=form)
        else:
            found.left_out.add(REPEATED, name)
    elif not source:
        raise UserError("a source of text has no name; name a file, folder or glob")
    elif path.is_dir():
        for file in below(str(path), found, takes_all):
            yield Unit(file, named=False, form=form)
    elif path.exists():
        require_file(path)
        yield from (Unit(file, form=form) for file in [source] if found.readable(file))
    elif os.path.islink(path):
        raise UserError(f"{source}: is a link to nothing; mend it or leave it out")
    else:
        if not glob.has_magic(source):
            raise UserError(f"{source}: no such file or folder; check the path")
        for file in behind(source, found, takes_all):
            yield Unit(file, named=False, form=form)


def _read_one(
    parts: Iterable[Unit], max_bytes: int | None, broken: Broken
) -> tuple[list[bytes], bool]:
    """Documents of a source, and whether the last one is whole."""
    documents: list[bytes] = []
    left = max_bytes
    for unit in parts:
        for document in unit.documents(broken):
            documents.append(document if left is None else document[:left])
            if left is not None and (left := left - len(documents[-1])) == 0:
                return documents, len(documents[-1]) == len(document)
    return documents, True


def hub_name(given: AnySource) -> str:
    """``hf:NAME[/CONFIG][@SPLIT]`` with what a table names; other names as they are.

    Raises:
        UserError: it has a split, or a configuration, in both ways.
    """
    if isinstance(given, str):
        return given
    path, at, split = given.path.partition("@")
    config = f"/{given.config}" if given.config else ""
    if given.split is None:
        return path + config + at + split
    require(not at, f"{given.path}: has the split {split!r} already; leave out split")
    return f"{path}{config}@{given.split}"


def _hub(name: str, broken: Broken, form: Form) -> Iterator[bytes]:
    """Rows of a dataset as they come."""
    library = needed("datasets", "data")
    path, _, split = name.removeprefix(HUB).partition("@")
    config = form.source.config if isinstance(form.source, SourceConfig) else None
    if config is None:
        path, config = _with_config(path)
    else:
        path = path.removesuffix(f"/{config}")
    try:
        stream = library.load_dataset(path, config, split=split or "train", streaming=True)
        rows = formats.Rows(name, broken, form)
        for number, row in enumerate(stream, 1):
            yield from rows.read(number, row)
        rows.check()
    except UserError:
        raise
    except (library.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = str(error).strip() or type(error).__name__
        raise UserError(
            f"{name}: cannot be read ({reason}); check the name, configuration and split"
        ) from None


def _with_config(path: str) -> tuple[str, str | None]:
    """``OWNER/NAME/CONFIG`` or ``FOLDER/CONFIG`` in two; a name without one as it is."""
    above, _, last = path.rpartition("/")
    on_disk = os.path.isdir(above) and not os.path.exists(path)
    on_hub = path.count("/") == 2 and not os.path.isabs(path) and not os.path.exists(path)
    return (above, last) if last and (on_disk or on_hub) else (path, None)


@lru_cache(1024)
def warn_once(remark: str) -> None:
    """Log a warning, unless the same was logged before, or another process does."""
    if os.environ.get("RANK", "0") == "0":
        log.warning("%s", printable(remark))
