"""Packed files as streams of bytes: gzip, Zstandard, xz, bzip2."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from blt.data.signatures import HEAD, check_head, check_name, name_of, signature
from blt.errors import UserError, needed

CHUNK = 2**17  # bytes read at once
SLICE = 2**13  # of packed Zstandard, which may unpack to 32,768 times as much
MAX_WINDOW = 31  # log2 of bytes that unpacking Zstandard looks back at, as `zstd --long=31` writes
TOO_WIDE = "Frame requires too much memory"  # what the library says of more
MAX_UNPACKED = 2**31  # bytes of one document, or line, in a packed file


def unreadable(error: OSError) -> NoReturn:
    ways = {IsADirectoryError: "name a file", FileNotFoundError: "check the path"}
    way = ways.get(type(error), "check its permissions")
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); {way}")


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a file.

    Raises:
        NotTextError: an archive, a table, or packed otherwise than its name says.
        UserError: damaged or unreadable, or more in one piece than may be unpacked.
    """
    check_name(path)
    packing = name_of(path).packing
    damage: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError)
    if packing == "Zstandard":
        damage = (*damage, needed("zstandard", "data").ZstdError)
    try:
        with path.open("rb") as file:
            head = file.peek(HEAD)[:HEAD]  # type: ignore[attr-defined]
            if not packing or not head:
                check_head(path, head)
                yield file
                return
            found = signature(head)
            if found is None or found[0] != packing:
                raise EOFError(f"it begins as {found[0] if found else 'something else'} does")
            stream = _Unpacked(_stream(packing, file), path)
            check_head(path, stream.peek(HEAD)[:HEAD])
            yield stream
    except damage as error:
        _damaged(path, error)
    except OSError as error:
        if error.errno is None:  # of gzip and bzip2
            _damaged(path, error)
        unreadable(error)


def text_of(path: Path) -> str:
    """All text of a file that must be UTF-8.

    Raises:
        UserError: it is not, or as of :func:`unpacked`.
    """
    with unpacked(path) as file:
        try:
            return file.read().decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is not UTF-8 ({error}); save it so") from None


def _damaged(path: Path, error: Exception) -> NoReturn:
    if TOO_WIDE in str(error):
        raise UserError(
            f"{path}: is packed with a window of more than {2**MAX_WINDOW / 1e9:.1f} GB, the most "
            "that is read; pack it again with `zstd --long=31` or less"
        ) from None
    kind = name_of(path).packing or "file"
    raise UserError(f"{path}: damaged {kind} ({error}); restore it or leave it out") from None


def _stream(packing: str, file: IO[bytes]) -> Any:
    if packing == "gzip":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if packing == "xz":
        return lzma.LZMAFile(file)
    return bz2.BZ2File(file) if packing == "bzip2" else _Zstandard(file)


class _Unpacked(io.BufferedReader):
    """Reads to the end, or to the end of a line, as far as a document may reach."""

    def __init__(self, raw: Any, path: Path) -> None:
        super().__init__(raw, CHUNK)
        self._named = path

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size >= 0:
            return super().read(size)
        data = bytearray()
        while chunk := self.read1(CHUNK):
            data += chunk
            self._bound(len(data))
        return bytes(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(MAX_UNPACKED + 1)
        self._bound(len(line))
        return line

    def __next__(self) -> bytes:
        if line := self.readline():
            return line
        raise StopIteration

    def _bound(self, size: int) -> None:
        if size > MAX_UNPACKED:
            raise UserError(
                f"{self._named}: unpacks to a document of more than {MAX_UNPACKED / 1e9:.1f} GB, "
                "the most that is read; split it, or put documents on the lines of a .jsonl file"
            )


class _Zstandard(io.RawIOBase):
    """Unpacked Zstandard; unlike the library's own readers it notices a file that was cut off."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._library = file, needed("zstandard", "data")
        self._frame: Any = None  # None: between frames
        self._ready, self._packed = memoryview(b""), b""

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
        self._packed = self._packed or self._file.read(SLICE)
        if not self._packed:
            if self._frame is not None:
                raise EOFError("it ends in the middle of a frame")
            return False
        if self._frame is None:
            most = 2 ** min(MAX_WINDOW, self._library.WINDOWLOG_MAX)
            self._frame = self._library.ZstdDecompressor(max_window_size=most).decompressobj()
        self._ready = memoryview(self._frame.decompress(self._packed))
        self._packed = self._frame.unused_data if self._frame.eof else b""
        self._frame = None if self._frame.eof else self._frame
        return True
