"""From packages to text by language, with a record of where each byte is from."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blt.errors import UserError
from tools.texts.against import apart
from tools.texts.archives import members
from tools.texts.clean import SAMPLE, Cleaner, main_script
from tools.texts.fetch import Source, fetch
from tools.texts.languages import language
from tools.texts.readers import READERS
from tools.texts.report import markdown
from tools.texts.written import documents, read, write

PACKAGES, TEXT, LICENCES = "packages", "text", "licences"
RECORD, TABLE, BEGUN = "SOURCES.json", "SOURCES.md", "BEGUN"


def build(folder: Path, sources: Sequence[Source], evaluation: np.ndarray) -> dict[str, Any]:
    """Fetch all sources and write ``text/LANGUAGE/SOURCE.jsonl.gz``, their licences and a record.

    What was fetched before is not fetched again, a build that ended early goes on with the source
    where it was, and the text replaces the old when all of it is there.

    Args:
        evaluation: blocks of text that must not be trained on.

    Raises:
        UserError: a package cannot be had, is another than pinned, or lacks what is read in it.
    """
    paths = [fetch(source, folder / PACKAGES) for source in sources]
    partial = folder / "text.partial"
    done = _begun(partial, evaluation)
    record: dict[str, Any] = {}
    cleaner = Cleaner()
    for source, path in zip(sources, paths, strict=True):
        facts = facts_of(source)
        if done and facts.items() <= next(iter(done.values())).items():
            record[source.name] = done.pop(source.name)
            for code in record[source.name]["languages"]:
                written = partial / code / f"{source.name}.jsonl.gz"
                cleaner.keep(code, (line for text in read(written) for line in text.split("\n")))
            continue
        keep_licence(source, path, folder / LICENCES)
        done = {}  # what follows depends on the lines of this
        record[source.name] = facts | _text(source, path, partial, cleaner, evaluation)
        write_json(partial / RECORD, record)
        print(f"{source.name}: {record[source.name]['bytes']:,} bytes", flush=True)
    shutil.rmtree(folder / TEXT, ignore_errors=True)
    for written in partial.glob("*/*.jsonl.gz"):  # of a list of sources that was another
        name, code = written.name.removesuffix(".jsonl.gz"), written.parent.name
        if code not in record.get(name, {}).get("languages", ()):
            written.unlink()
    (partial / BEGUN).unlink()
    (partial / RECORD).replace(folder / RECORD)
    partial.rename(folder / TEXT)
    (folder / TABLE).write_text(markdown(record))
    return record


def _begun(partial: Path, evaluation: np.ndarray) -> dict[str, Any]:
    """The record of a build, kept apart from the same evaluation, that ended early."""
    key = hashlib.sha256(evaluation.tobytes()).hexdigest()
    begun = partial / BEGUN
    if begun.exists() and begun.read_text() == key:
        record = partial / RECORD
        return json.loads(record.read_text()) if record.exists() else {}
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    begun.write_text(key)
    return {}


def write_json(path: Path, record: dict[str, Any]) -> None:
    whole = path.with_suffix(".tmp")
    whole.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    whole.replace(path)


def facts_of(source: Source) -> dict[str, Any]:
    return {
        key: list(value) if key in ("files", "skip") else value
        for key, value in vars(source).items()
    }


def keep_licence(source: Source, path: Path, folder: Path) -> None:
    stated = list(members(path, re.compile(re.escape(source.licence_file) + "$")))
    if not stated:
        raise UserError(f"{path}: no {source.licence_file}, which should state the licence")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{source.name}.txt").write_bytes(stated[0][1])


def read_all(source: Source, path: Path) -> Iterator[tuple[str, str | None, str]]:
    """What the list or a file's name says of each text, what its reader says, and the text.

    Texts that the source skips are left out.

    Raises:
        UserError: a file that its reader cannot read.
    """
    for pattern, fixed, reader in source.readers():
        for name, data in members(path, pattern):
            match = pattern.search(name)
            assert match is not None  # members() looked for it
            named = fixed or match.groupdict().get("language") or "und"
            try:
                for tag, text in READERS[reader](data):
                    if (tag or named) not in source.skip:
                        yield named, tag, text
            except (ValueError, LookupError, AssertionError, struct.error) as error:
                raise UserError(f"{path}: {name}: not read as {reader} ({error})") from None


def strings(source: Source, path: Path) -> dict[str, list[str]]:
    """All strings of a package by language, as they stand.

    Raises:
        UserError: a file that its reader cannot read.
    """
    found: dict[str, list[str]] = {}
    for named, tag, text in read_all(source, path):
        code = language(tag or named)
        if code and text:
            found.setdefault(code, []).append(text)
    if not found:
        raise UserError(f"{path}: no strings; do the patterns of {source.name} fit this version?")
    return found


def _text(
    source: Source, path: Path, folder: Path, cleaner: Cleaner, evaluation: np.ndarray
) -> dict[str, Any]:
    """Write a source's documents; say how many bytes of each language, and what is left out."""
    found = strings(source, path)
    cleaner.begin(found.get("en", ()))
    languages: dict[str, Any] = {}
    overlapping: dict[str, Any] = {}
    for code in sorted(found):
        lines = cleaner.clean(code, found[code])
        texts, touched, dropped = apart(documents(lines), evaluation)
        if dropped:
            overlapping[code] = {"documents": touched, "lines": dropped}
        if texts:
            cleaner.keep(code, (line for text in texts for line in text.split("\n")))
            digest = write(folder / code / f"{source.name}.jsonl.gz", texts)
            languages[code] = {
                "script": main_script(lines[:SAMPLE]),
                "documents": len(texts),
                "bytes": sum(len(text.encode(errors="replace")) for text in texts),
                "sha256": digest,
            }
    return {
        "bytes": sum(of["bytes"] for of in languages.values()),
        "overlapping": overlapping,
        "lines_left_out": dict(sorted(cleaner.left_out.items())),
        "languages": languages,
    }
