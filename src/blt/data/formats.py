"""Documents inside one file, by its name. Any bytes are valid text, so nothing is decoded."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from blt.data.compressed import unpacked
from blt.data.left_out import TEXT, Broken
from blt.data.signatures import BINARY, JSON, LINES, PARQUET, NotTextError, check_name, name_of
from blt.errors import UserError, needed
from blt.vocab import to_bytes

SNIFF_BYTES = 8000
KEYS_SHOWN, LONGEST_KEY = 8, 40  # of an object without text


def documents(path: Path, named: bool, broken: Broken) -> Iterator[bytes]:
    """Documents of one file, without empty ones.

    Args:
        named: by the user, so what cannot be read is an error, and what looks binary is read; else
            both are left out.

    Raises:
        UserError: unreadable or damaged, a library is missing, or too many broken lines; if named,
            also what hides its text, such as an archive.
    """
    if not named and name_of(path).suffix in BINARY:
        broken.left_out.add("binary files", path)
        return
    try:
        check_name(path)
        if name_of(path).suffix in PARQUET:
            yield from _parquet(path, broken)
        else:
            yield from _in_stream(path, named, broken)
    except NotTextError as error:
        if named:
            raise
        broken.left_out.add(error.kind, path)
    except MemoryError:
        raise UserError(
            f"{path}: a document in it does not fit in memory; split it, or put documents on the "
            "lines of a .jsonl file"
        ) from None


def _in_stream(path: Path, named: bool, broken: Broken) -> Iterator[bytes]:
    suffix = name_of(path).suffix
    with unpacked(path) as file:
        if not file.peek(1):  # type: ignore[attr-defined]
            _note(broken, "empty files", path, named)
            return
        if suffix in LINES:
            yield from _lines(str(path), file, broken)
            return
        lines, data = _lines_of_json(file) if suffix in JSON else (None, file.read())
        if lines is not None:
            yield from _lines(str(path), lines, broken)
        elif b"\0" in data[:SNIFF_BYTES]:
            if _note(broken, "binary files", path, named):
                yield data
        elif suffix in JSON:
            yield from _json(path, data, broken)
        else:
            yield data


def _note(broken: Broken, kind: str, path: Path, named: bool) -> bool:
    """Take note of an odd file; is it read nevertheless?"""
    (broken.as_text if named else broken.left_out).add(kind, path)
    return named


def _lines_of_json(file: IO[bytes]) -> tuple[Iterator[bytes] | None, bytes]:
    """Lines of a ``.json`` that has an object on each; or else None, and all of it."""
    first, second = file.readline(), file.readline()
    found = _parsed(first)
    if isinstance(found, dict) and (second.strip() or TEXT in found):
        return chain((first, second), file), b""
    return None, first + second + file.read()


def _json(path: Path, data: bytes, broken: Broken) -> Iterator[bytes]:
    """The texts of objects that have one, or all of any other JSON as it stands."""
    found = _parsed(data)
    records = found if isinstance(found, list) else [found]
    if records and isinstance(records[0], dict) and TEXT in records[0]:
        for number, record in enumerate(records, 1):
            yield from rows(str(path), number, record, broken)
        return
    broken.as_text.add("JSON without documents", path)
    yield data


def _parsed(data: bytes) -> Any:
    """What JSON says; None for what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _lines(path: str, lines: Iterable[bytes], broken: Broken) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            broken.add(path, number, str(error))
            continue
        yield from rows(path, number, record, broken)


def rows(where: str, number: int, record: Any, broken: Broken) -> Iterator[bytes]:
    """The document of one line or row, if it has one."""
    try:
        if text := _text_of(record):
            yield text
    except ValueError as error:
        broken.add(where, number, str(error))


def _text_of(record: Any) -> bytes:
    """Any ValueError says what is broken."""
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, got {type(record).__name__}")
    if TEXT not in record:
        raise ValueError(f"no {TEXT!r} among its keys, which are {_listed(record)}")
    text = record[TEXT]
    if not isinstance(text, str | bytes):
        raise ValueError(f"{TEXT!r} must be a string, got {type(text).__name__}")
    return to_bytes(text)


def _listed(names: Collection[str]) -> str:
    shown = [name[:LONGEST_KEY] for name in islice(names, KEYS_SHOWN)]
    return ", ".join([*shown, *["…"] * (len(names) > KEYS_SHOWN)]) or "none"


def _parquet(path: Path, broken: Broken) -> Iterator[bytes]:
    arrow, parquet = needed("pyarrow", "data"), needed("pyarrow.parquet", "data")
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if TEXT not in names:
            raise UserError(f"{path}: no column {TEXT!r}; its columns are {_listed(names)}")
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=[TEXT]):
            for text in batch.column(0):
                number += 1
                yield from rows(str(path), number, {TEXT: text.as_py()}, broken)
    except MemoryError:  # pyarrow's is one of its own errors too
        raise
    except (arrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged Parquet ({error}); restore it or leave it out") from None
