"""Whole files out of packages with clear licences: source code, technical documentation, novels.

    python -m tools.texts.whole data/whole --against ../shared/data/bench-* ../shared/data/valid-*

Fetches the packages of whole.toml as tools.texts does, and writes KIND/SOURCE.jsonl.gz, a file a
document as it stands, SOURCES.json, SOURCES.md and licences/ into the folder. A document that holds
a block of 50 letters of a line that evaluates (--against), or of what every recipe holds out of
Python, is left out, and so are those that are twice there, short, long, or not in UTF-8; each is
counted. The old text stays until all of the new is there, and goes then: text of kinds and sources
that the new record lacks (--only, another list) too. The same packages give the same text.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blt.errors import UserError, require
from blt.evals.overlap import BLOCK, blocks_of, hold
from blt.files.strict_json import read_object
from tools.heldout import held_out
from tools.texts.against import letters
from tools.texts.asked import build_asked
from tools.texts.build import (
    LICENCES,
    PACKAGES,
    RECORD,
    TABLE,
    facts_of,
    keep_licence,
    read_all,
    write_json,
)
from tools.texts.fetch import Source, fetch
from tools.texts.written import write

LIST = Path(__file__).parent / "whole.toml"
LEAST, MOST = 400, 400_000  # bytes of a file; longer ones are tables more often than text
BOOKS = "books"  # the kind whose texts are long
ROWS = blocks_of([letters(chr(sign) * BLOCK) for sign in range(128)])  # of one sign: no passage


def build(folder: Path, chosen: Sequence[Source], evaluation: np.ndarray) -> dict[str, Any]:
    """Fetch all sources and write ``KIND/SOURCE.jsonl.gz``, their licences and a record.

    Args:
        evaluation: blocks of text that must not be trained on.

    Raises:
        UserError: a package cannot be had, is another than pinned, or lacks what is read in it; or
            the folder has text of another tool.
    """
    _recorded(folder)  # before minutes of work
    paths = [fetch(source, folder / PACKAGES) for source in chosen]
    evaluation = np.setdiff1d(evaluation, ROWS)
    seen: set[str] = set()
    record: dict[str, Any] = {}
    partial = folder / "text.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for source, path in zip(chosen, paths, strict=True):
        keep_licence(source, path, folder / LICENCES)
        record[source.name] = _written(source, path, partial, seen, evaluation)
        print(f"{source.name}: {record[source.name]['bytes']:,} bytes", flush=True)
    _replace(folder, partial, record)
    return record


def _replace(folder: Path, partial: Path, record: dict[str, Any]) -> None:
    """Put the new text in place of the old; at no moment is there text without its record."""
    for kind in _kinds(_recorded(folder)) | _kinds(record):
        if (folder / kind).exists():  # no error is passed over: the old record goes next
            shutil.rmtree(folder / kind)
    write_json(folder / RECORD, record)
    (folder / TABLE).write_text(markdown(record))
    for kind in partial.iterdir():
        kind.rename(folder / kind.name)
    partial.rmdir()


def _recorded(folder: Path) -> dict[str, Any]:
    """The record of the text that is there.

    Raises:
        UserError: damaged, or of text that another tool wrote.
    """
    path = folder / RECORD
    record = read_object(path, f"delete it and the text in {folder}") if path.exists() else {}
    ours = all(isinstance(of, dict) and "kinds" in of for of in record.values())
    require(ours, f"{path}: is the record of other text; choose another folder")
    return record


def _kinds(record: dict[str, Any]) -> set[str]:
    return {kind for of in record.values() for kind in of["kinds"]}


def _written(
    source: Source, path: Path, folder: Path, seen: set[str], evaluation: np.ndarray
) -> dict[str, Any]:
    """Write a source's documents; say how many bytes of each kind, and what is left out."""
    left_out: Counter[str] = Counter()
    texts: dict[str, list[str]] = {}
    for kind, _, as_it_stands in read_all(source, path):
        size = len(as_it_stands.encode())
        text = as_it_stands.replace("\r\n", "\n")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if fault := _fault(text, size, kind) or ("there already" if digest in seen else None):
            left_out[fault] += 1
        elif hold([letters(text)], evaluation)[0]:
            left_out["holds what evaluates"] += 1
        else:
            seen.add(digest)
            texts.setdefault(kind, []).append(text)
    if not texts:
        raise UserError(f"{path}: no files; do the patterns of {source.name} fit this version?")
    hashes = {
        kind: write(folder / kind / f"{source.name}.jsonl.gz", of) for kind, of in texts.items()
    }
    return facts_of(source) | {
        "documents": sum(map(len, texts.values())),
        "bytes": sum(len(text.encode()) for of in texts.values() for text in of),
        "left_out": dict(sorted(left_out.items())),
        "kinds": hashes,
    }


def _fault(text: str, size: int, kind: str) -> str | None:
    """Why a file is not taken, if so."""
    if "\ufffd" in text or "\0" in text:
        return "not in UTF-8"
    if size < LEAST:
        return "short"
    return "long" if size > MOST and kind != BOOKS else None


def of_python() -> np.ndarray:
    """Blocks of 50 letters of what every recipe holds out of Python's source and documentation."""
    return blocks_of(
        [letters(text.decode(errors="replace")) for text in held_out("builtin:python")]
    )


def markdown(record: dict[str, Any]) -> str:
    """What each source gave, as a table that a person reads."""
    rows = ["| source | kind | licence | thanks to | documents | kB |", "|---|---|---|---|---|---|"]
    for name, of in record.items():
        what = f"{name}: {of['package']} {of['version']} ({of['client']})"
        kinds, size = ", ".join(of["kinds"]), f"{of['documents']} | {of['bytes'] / 1000:.0f}"
        rows.append(f"| {what} | {kinds} | {of['licence']} | {of['attribution']} | {size} |")
    return "\n".join([*rows, ""])


def _build_apart(folder: Path, chosen: Sequence[Source], evaluation: np.ndarray) -> None:
    build(folder, chosen, np.union1d(evaluation, of_python()))


if __name__ == "__main__":
    build_asked("tools.texts.whole", __doc__, LIST, _build_apart)
