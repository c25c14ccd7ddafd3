"""Documents inside one file, by its suffix. Any bytes are valid text, so nothing is decoded."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from blt.errors import UserError, how_to_install
from blt.vocab import to_bytes

MAX_BROKEN_LINES = 100  # more than this, and the file is not what its name says
TEXT = "text"  # key of JSONL lines, column of tables
PACKED = (".gz", ".zst")
SNIFF_BYTES = 8000
CHUNK = 2**17  # bytes read at once
BINARY_SUFFIXES = (
    *(".7z", ".a", ".bz2", ".jar", ".rar", ".tar", ".tgz", ".whl", ".xz", ".zip"),
    *(".bin", ".class", ".dll", ".dylib", ".exe", ".o", ".pyc", ".so"),
    *(".bmp", ".gif", ".ico", ".jpeg", ".jpg", ".pdf", ".png", ".ttf", ".webp", ".woff", ".woff2"),
    *(".avi", ".mkv", ".mov", ".mp3", ".mp4", ".ogg", ".wav"),
    *(".arrow", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".safetensors", ".sqlite"),
)


class Broken:
    """Lines and rows that hold no document: counted, and the first of them named.

    Args:
        limit: so many in one file are left out; one more ends the reading.
    """

    def __init__(self, limit: int = MAX_BROKEN_LINES) -> None:
        self.limit, self.count = limit, 0
        self.named: list[str] = []  # "file:line: why"
        self._path, self._here = "", 0

    def add(self, path: str, line: int, why: str) -> None:
        """Take note of one.

        Raises:
            UserError: too many in this file.
        """
        self._here = self._here + 1 if path == self._path else 1
        self._path = path
        self.count += 1
        message = f"{path}:{line}: {why}"
        if len(self.named) < MAX_BROKEN_LINES:
            self.named.append(message)
        if self._here > self.limit:
            raise UserError(
                f"{message}; that is more than {self.limit} broken lines: every line must be a "
                f'JSON object like {{"{TEXT}": "..."}}, every row must have that column'
            )


def documents(path: Path, named: bool, broken: Broken) -> Iterator[bytes]:
    """Documents of one file, without empty ones.

    Args:
        named: read it whatever it looks like; else what looks binary is left out.

    Raises:
        UserError: unreadable or damaged, a library is missing, or too many broken lines.
    """
    plain = path.with_suffix("") if path.suffix in PACKED else path
    if not path.is_file() or (not named and plain.suffix.lower() in BINARY_SUFFIXES):
        return
    if path.suffix == ".parquet":
        yield from _parquet(path, broken)
        return
    with unpacked(path) as file:
        if plain.suffix == ".jsonl":
            yield from _lines(str(path), file, broken)
            return
        data = file.read()
    if data and (named or b"\0" not in data[:SNIFF_BYTES]):
        yield data


def unreadable(error: OSError) -> NoReturn:
    way = "name a file" if isinstance(error, IsADirectoryError) else "check its permissions"
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); {way}")


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a file; what is damaged is named."""
    damage: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, zlib.error)
    if path.suffix == ".zst":
        damage = (*damage, needed("zstandard").ZstdError)
    try:
        with path.open("rb") as file:
            yield _unpacked(path, file)
    except damage as error:
        kind = {".gz": "gzip", ".zst": "Zstandard"}.get(path.suffix, "file")
        raise UserError(f"{path}: damaged {kind} ({error}); restore it or leave it out") from None
    except OSError as error:
        unreadable(error)


def _unpacked(path: Path, file: IO[bytes]) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(file)  # type: ignore[return-value]
    if path.suffix == ".zst":
        return io.BufferedReader(_Zstandard(file), CHUNK)
    return file


class _Zstandard(io.RawIOBase):
    """Unpacked Zstandard; unlike the library's own readers it notices a file that was cut off."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._library = file, needed("zstandard")
        self._frame: Any = None  # None: between frames
        self._ready, self._packed = b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._more():
            pass
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _more(self) -> bool:
        """Unpack a little more; False at the end."""
        self._packed = self._packed or self._file.read(CHUNK)
        if not self._packed:
            if self._frame is not None:
                raise EOFError("it ends in the middle of a frame")
            return False
        if self._frame is None:
            self._frame = self._library.ZstdDecompressor().decompressobj()
        self._ready = self._frame.decompress(self._packed)
        self._packed = self._frame.unused_data if self._frame.eof else b""
        self._frame = None if self._frame.eof else self._frame
        return True


def _lines(path: str, lines: Iterator[bytes], broken: Broken) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = _text_of(line)
        except (ValueError, RecursionError) as error:
            broken.add(path, number, str(error))
            continue
        if text:
            yield text


def _text_of(line: bytes) -> bytes:
    """The document of one line; any ValueError says what is broken."""
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got {type(data).__name__}")
    return _bytes_of(data.get(TEXT))


def _bytes_of(text: Any) -> bytes:
    if not isinstance(text, str | bytes):
        raise ValueError(f"{TEXT!r} must be a string, got {type(text).__name__}")
    return to_bytes(text)


def _parquet(path: Path, broken: Broken) -> Iterator[bytes]:
    arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        if TEXT not in file.schema_arrow.names:
            names = ", ".join(file.schema_arrow.names)
            raise UserError(f"{path}: no column {TEXT!r}; its columns are {names}")
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=[TEXT]):
            for text in batch.column(0):
                number += 1
                yield from rows(str(path), number, text.as_py(), broken)
    except (arrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged Parquet ({error}); restore it or leave it out") from None


def rows(where: str, number: int, text: Any, broken: Broken) -> Iterator[bytes]:
    """The document of one row of a table, if it has one."""
    try:
        if document := _bytes_of(text):
            yield document
    except ValueError as error:
        broken.add(where, number, str(error))


def needed(module: str, extra: str = "data") -> Any:
    """A module of an extra.

    Raises:
        UserError: not installed; says how to get it.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"this needs {module.partition('.')[0]}; install it with {how_to_install(extra)}"
        ) from error
