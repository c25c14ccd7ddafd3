"""Strings in an Android resource table (``resources.arsc``), each with its language."""

from __future__ import annotations

import struct
from collections.abc import Iterator

POOL, TABLE_PACKAGE, TYPE = 0x0001, 0x0200, 0x0201  # kinds of chunk
UTF8 = 1 << 8  # flag of a pool
SPARSE = 1  # flag of a type: none of the tables here
COMPLEX = 1  # flag of an entry: plurals and arrays
STRING = 3  # type of a value
NONE = 0xFFFFFFFF


def strings(table: bytes) -> Iterator[tuple[str, str]]:
    """Language tag (``en`` where a table names none) and string of every value."""
    pool: list[str] = []
    for kind, at, _, size in _chunks(table, 12, len(table)):
        if kind == POOL and not pool:
            pool = _pool(table, at)
        elif kind == TABLE_PACKAGE:
            header = struct.unpack_from("<H", table, at + 2)[0]
            for inner, start, skip, _ in _chunks(table, at + header, at + size):
                if inner == TYPE:
                    tag = _language(table[start + 20 : start + 20 + 40])
                    yield from ((tag, pool[index]) for index in _values(table, start, skip))


def _chunks(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Kind, position, size of header and size of each chunk."""
    while at + 8 <= end:
        kind, header, size = struct.unpack_from("<HHI", data, at)
        yield kind, at, header, size
        at += max(size, 8)


def _pool(data: bytes, at: int) -> list[str]:
    count, _, flags, start = struct.unpack_from("<4I", data, at + 8)
    offsets = struct.unpack_from(f"<{count}I", data, at + 28)
    read = _utf8 if flags & UTF8 else _utf16
    return [read(data, at + start + offset) for offset in offsets]


def _utf8(data: bytes, at: int) -> str:
    """One or two bytes for the length in UTF-16, the same for that in bytes, then the string."""
    at += 2 if data[at] & 0x80 else 1
    size = data[at]
    at += 1
    if size & 0x80:
        size = (size & 0x7F) << 8 | data[at]
        at += 1
    return data[at : at + size].decode("utf-8", "replace")


def _utf16(data: bytes, at: int) -> str:
    size = struct.unpack_from("<H", data, at)[0]
    at += 2
    if size & 0x8000:
        size = (size & 0x7FFF) << 16 | struct.unpack_from("<H", data, at)[0]
        at += 2
    return data[at : at + 2 * size].decode("utf-16-le", "replace")


def _language(config: bytes) -> str:
    """Language, with its script where one is given."""
    code, script = config[8:10], config[36:40].rstrip(b"\0").decode("ascii", "replace")
    if not code[0]:
        return "en"
    if code[0] & 0x80:  # three letters, five bits each
        bits = code[0] << 8 | code[1]
        letters = (code[1] & 31, bits >> 5 & 31, bits >> 10 & 31)
        name = "".join(chr(ord("a") + letter) for letter in letters)
    else:
        name = code.decode("ascii", "replace")
    region = config[10:12].decode("ascii", "replace") if 0 < config[10] < 0x80 else ""
    return "-".join(filter(None, (name, script, region)))


def _values(data: bytes, at: int, header: int) -> Iterator[int]:
    """Places in the pool of all strings of a type's entries."""
    count, start = struct.unpack_from("<2I", data, at + 12)
    assert not data[at + 9] & SPARSE
    for offset in struct.unpack_from(f"<{count}I", data, at + header):
        if offset == NONE:
            continue
        entry = at + start + offset
        size, flags = struct.unpack_from("<2H", data, entry)
        if flags & COMPLEX:
            many = struct.unpack_from("<I", data, entry + 12)[0]
            places = [entry + size + 12 * index + 4 for index in range(many)]
        else:
            places = [entry + size]
        for place in places:
            kind, value = struct.unpack_from("<3xBI", data, place)
            if kind == STRING:
                yield value
