"""Books in the data of an R package: each a vector of the lines of a page.

The file is a row of values, each compressed: 4 bytes that say how long it is, and zlib's. A value
is serialised in R's binary form (R Internals, "Serialization Formats"), version 3.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

HEADER = b"X\n\0\0\0\3"  # binary, big-endian, version 3
STRINGS, STRING = 16, 9  # STRSXP, CHARSXP: the lowest byte of a value's flags
MISSING = 2**32 - 1  # as a length: R's NA


def novels(data: bytes) -> Iterator[tuple[str, str]]:
    """Title (the first line) and text of each book, a paragraph on a line.

    Raises:
        ValueError: another file than is described above; says at which byte.
    """
    at = 0
    while at < len(data):
        unpack = zlib.decompressobj()
        try:
            value = unpack.decompress(data[at + 4 :])
        except zlib.error as error:
            raise ValueError(f"byte {at}: no compressed value ({error})") from None
        lines = list(_strings(value))
        text = _paragraphs(b"\n".join(lines))
        yield lines[0].decode("utf-8", "replace"), text.decode("utf-8", "replace")
        at = len(data) - len(unpack.unused_data)


def _strings(value: bytes) -> Iterator[bytes]:
    """The strings of a vector of strings."""
    at = 14 + 4  # versions of the form, of R, and the least that reads it; length of a name
    at += int.from_bytes(value[14:18])  # of the encoding
    flags, count = struct.unpack_from(">II", value, at)
    if not value.startswith(HEADER) or flags & 0xFF != STRINGS:
        raise ValueError("a value that is no vector of strings")
    at += 8
    for _ in range(count):
        flags, size = struct.unpack_from(">II", value, at)
        if flags & 0xFF != STRING:
            raise ValueError(f"byte {at} of a value: no string")
        size = 0 if size == MISSING else size
        yield value[at + 8 : at + 8 + size]
        at += 8 + size


def _paragraphs(text: bytes) -> bytes:
    """Lines of a page joined to paragraphs, an empty line between two."""
    found = re.split(rb"\n\s*\n", text)
    return b"\n\n".join(b" ".join(part.split()) for part in found if part.strip())
