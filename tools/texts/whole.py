"""Whole files out of packages with clear licences: source code, technical documentation, novels.

    python -m tools.texts.whole data/whole --against ../shared/data/bench-* ../shared/data/valid-*

Fetches the packages of whole.toml as tools.texts does, and writes KIND/SOURCE.jsonl.gz, a file a
document as it stands, SOURCES.json, SOURCES.md and licences/ into the folder. A document that holds
a block of 50 letters of a line that evaluates (--against), or of what every recipe holds out of
Python, is left out, and so are those that are twice there, short, long, or not in UTF-8; each is
counted. The same packages give the same text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blt.errors import UserError
from blt.evals.overlap import BLOCK, blocks_of, hold
from tools.asked import mistakes_end
from tools.heldout import held_out
from tools.texts.against import evaluated, letters
from tools.texts.archives import members
from tools.texts.build import LICENCES, PACKAGES, RECORD, TABLE, keep_licence
from tools.texts.fetch import Source, fetch, sources
from tools.texts.novels import novels
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
        UserError: a package cannot be had, is another than pinned, or lacks what is read in it.
    """
    paths = [fetch(source, folder / PACKAGES) for source in chosen]
    evaluation = np.setdiff1d(evaluation, ROWS)
    seen: set[str] = set()
    record: dict[str, Any] = {}
    for kind in {of["language"] for source in chosen for of in source.files}:
        shutil.rmtree(folder / kind, ignore_errors=True)  # of a list that was another
    for source, path in zip(chosen, paths, strict=True):
        keep_licence(source, path, folder / LICENCES)
        record[source.name] = _written(source, path, folder, seen, evaluation)
        print(f"{source.name}: {record[source.name]['bytes']:,} bytes", flush=True)
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    (folder / TABLE).write_text(markdown(record))
    return record


def _written(
    source: Source, path: Path, folder: Path, seen: set[str], evaluation: np.ndarray
) -> dict[str, Any]:
    """Write a source's documents; say how many bytes of each kind, and what is left out."""
    left_out: Counter[str] = Counter()
    texts: dict[str, list[str]] = {}
    for kind, data in _files(source, path):
        text = data.decode("utf-8", "replace").replace("\r\n", "\n")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if fault := _fault(text, len(data), kind) or ("there already" if digest in seen else None):
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
    return {
        **{key: vars(source)[key] for key in ("client", "package", "version", "file", "sha256")},
        **{key: vars(source)[key] for key in ("licence", "attribution")},
        "documents": sum(map(len, texts.values())),
        "bytes": sum(len(text.encode()) for of in texts.values() for text in of),
        "left_out": dict(sorted(left_out.items())),
        "kinds": hashes,
    }


def _files(source: Source, path: Path) -> Iterator[tuple[str, bytes]]:
    """Kind and content of each file that is asked for."""
    for pattern, kind, reader in source.readers():
        assert kind is not None  # the list names one for each pattern; a test holds it to that
        for _, data in members(path, pattern):
            if reader == "whole":
                yield kind, data
            else:
                yield from (
                    (kind, text) for title, text in novels(data) if title not in source.skip
                )


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


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.texts.whole",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="PATH")
    given = parser.parse_args()
    with mistakes_end():
        against = np.union1d(evaluated(given.against), of_python())
        build(given.folder, sources(LIST), against)
    print(given.folder / TABLE)


if __name__ == "__main__":
    main()
