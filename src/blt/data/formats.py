"""Documents inside one file, by its name. Any bytes are valid text, so nothing is decoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from blt.data.compressed import unpacked, unreadable
from blt.data.form import Form, listed
from blt.data.left_out import Broken
from blt.data.signatures import BINARY, JSON, LINES, PARQUET, NotTextError, check_name, name_of
from blt.errors import UserError, needed

SNIFF_BYTES = 8000
PLAIN = Form()


def documents(path: Path, named: bool, broken: Broken, form: Form = PLAIN) -> Iterator[bytes]:
    """Documents of one file, without empty ones.

    Args:
        named: by the user, so what cannot be read is an error, and what looks binary is read; else
            both are left out.
        form: what rows mean.

    Raises:
        UserError: unreadable or damaged, a library is missing, too many broken lines, or a key that
            the user named and no row has; if named, also what hides its text, such as an archive.
    """
    if form.takes_all:
        yield from _as_it_is(path, named, broken)
        return
    if not named and name_of(path).suffix in BINARY:
        broken.left_out.add("binary files", path)
        return
    try:
        check_name(path)
        if name_of(path).suffix in PARQUET:
            yield from _parquet(path, broken, form)
        else:
            yield from _in_stream(path, named, broken, form)
    except NotTextError as error:
        if named:
            raise
        broken.left_out.add(error.kind, path)
    except MemoryError:
        raise UserError(
            f"{path}: a document in it does not fit in memory; split it, or put documents on the "
            "lines of a .jsonl file"
        ) from None


def _as_it_is(path: Path, named: bool, broken: Broken) -> Iterator[bytes]:
    """Its bytes, whatever they are."""
    try:
        data = path.read_bytes()
    except OSError as error:
        unreadable(error)
    if data or _note(broken, "empty files", path, named):
        yield from [data] * bool(data)


def _in_stream(path: Path, named: bool, broken: Broken, form: Form) -> Iterator[bytes]:
    suffix = name_of(path).suffix
    with unpacked(path) as file:
        if not file.peek(1):  # type: ignore[attr-defined]
            _note(broken, "empty files", path, named)
            return
        if suffix in LINES:
            yield from _lines(Rows(str(path), broken, form), file)
            return
        if form.named and suffix not in JSON:
            if named:
                raise UserError(f"{path}: has no rows, and so no {form.keys[0]!r}; name JSON lines")
            broken.left_out.add("files without rows", path)
            return
        lines, data = _lines_of_json(file, form) if suffix in JSON else (None, file.read())
        if lines is not None:
            yield from _lines(Rows(str(path), broken, form), lines)
        elif b"\0" in data[:SNIFF_BYTES]:
            if _note(broken, "binary files", path, named):
                yield data
        elif suffix in JSON:
            yield from _json(path, data, broken, form)
        else:
            yield data


def _note(broken: Broken, kind: str, path: Path, named: bool) -> bool:
    """Take note of an odd file; is it read nevertheless?"""
    (broken.as_text if named else broken.left_out).add(kind, path)
    return named


def _lines_of_json(file: IO[bytes], form: Form) -> tuple[Iterator[bytes] | None, bytes]:
    """Lines of a ``.json`` that has an object on each; or else None, and all of it."""
    first, second = file.readline(), file.readline()
    found = _parsed(first)
    if isinstance(found, dict) and (second.strip() or form.fits(found)):
        return chain((first, second), file), b""
    return None, first + second + file.read()


def _json(path: Path, data: bytes, broken: Broken, form: Form) -> Iterator[bytes]:
    """The texts of objects that have one, or all of any other JSON as it stands."""
    found = _parsed(data)
    records = found if isinstance(found, list) else [found]
    if (records and form.fits(records[0])) or form.named:
        rows = Rows(str(path), broken, form)
        for number, record in enumerate(records, 1):
            yield from rows.read(number, record)
        rows.check()
        return
    broken.as_text.add("JSON without documents", path)
    yield data


def _parsed(data: bytes) -> Any:
    """What JSON says; None for what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


class Rows:
    """The documents of a file's lines or rows, one after another.

    Args:
        where: the file.
    """

    def __init__(self, where: str, broken: Broken, form: Form) -> None:
        self.where, self.broken, self.form = where, broken, form
        self._lacking = set(form.keys)  # keys that no row had so far
        self._first: tuple[int, Any] | None = None

    def read(self, number: int, row: Any) -> Iterator[bytes]:
        """The document of one, if it has one."""
        self._first = self._first or (number, row)
        if self._lacking and isinstance(row, dict):
            self._lacking.difference_update(row)
        try:
            if document := self.form.document(row):
                yield document
        except ValueError as error:
            self.skip(number, str(error))

    def skip(self, number: int, why: str) -> None:
        self.broken.add(self.where, number, why, self.form.example)

    def check(self) -> None:
        """After the last of them: has any had the keys that the user named?"""
        if not (self._lacking and self.form.named and self._first):
            return
        number, row = self._first
        key = next(key for key in self.form.keys if key in self._lacking)
        there = f"its keys are {listed(row)}" if isinstance(row, dict) else "it is no object"
        first = f"of the first, {self.where}:{number}, {there}{self.form.hint(key, row)}"
        raise UserError(f"{self.where}: no row has the key {key!r}; {first}")


def _lines(rows: Rows, lines: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            rows.skip(number, str(error))
            continue
        yield from rows.read(number, record)
    rows.check()


def _parquet(path: Path, broken: Broken, form: Form) -> Iterator[bytes]:
    arrow, parquet = needed("pyarrow", "data"), needed("pyarrow.parquet", "data")
    try:
        file = parquet.ParquetFile(path)
        names, keys = file.schema_arrow.names, list(form.keys)
        for key in keys:
            if key not in names:
                raise UserError(f"{path}: no column {key!r}; its columns are {listed(names)}")
        rows, number = Rows(str(path), broken, form), 0
        for batch in file.iter_batches(batch_size=256, columns=keys):
            for values in zip(*(batch.column(key) for key in keys), strict=True):
                number += 1
                row = {key: value.as_py() for key, value in zip(keys, values, strict=True)}
                yield from rows.read(number, row)
    except MemoryError:  # pyarrow's is one of its own errors too
        raise
    except (arrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged Parquet ({error}); restore it or leave it out") from None
