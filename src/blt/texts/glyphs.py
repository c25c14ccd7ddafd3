"""Any bytes as printable glyphs, none lost: what the terminal and the report draw."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NAMED = {"\n": "⏎", "\t": "⇥"}  # marks for white space that would not be seen


@dataclass(frozen=True)
class Glyph:
    """One thing to draw, and the bytes that it stands for."""

    at: int  # offset of its first byte
    data: bytes  # 1..4 bytes
    text: str  # printable; never empty
    plain: bool  # the character itself, not a mark or an escape

    @property
    def is_newline(self) -> bool:
        return self.data == b"\n"


def glyphs(data: bytes, starts: Sequence[bool] | None = None) -> Iterator[Glyph]:
    r"""Glyphs of ``data``, in order and without gaps.

    A character is drawn whole where all its bytes lie in one patch. Its bytes are drawn as ``\xff``
    where a patch boundary cuts it, where they are not valid UTF-8, and where it cannot be printed.

    Args:
        data: any bytes.
        starts: per byte, whether it starts a patch; None for no boundaries.
    """
    at = 0
    while at < len(data):
        size = _character_size(data, at, starts)
        char = data[at : at + size].decode() if size else ""
        if char in NAMED:
            yield Glyph(at, data[at : at + 1], NAMED[char], plain=False)
        elif char and char.isprintable():
            begins_patch = starts is not None and (at == 0 or bool(starts[at]))
            yield Glyph(at, data[at : at + size], _standing(char, begins_patch), plain=True)
        else:
            size = max(size, 1)
            for i in range(at, at + size):
                yield Glyph(i, data[i : i + 1], f"\\x{data[i]:02x}", plain=False)
        at += size


def visible(data: bytes) -> str:
    """``data`` as text to read: newlines and tabs as they are, the unprintable as escapes."""
    return "".join(
        g.data.decode() if g.data in (b"\n", b"\t") else g.text for g in glyphs(bytes(data))
    )


def _character_size(data: bytes, at: int, starts: Sequence[bool] | None) -> int:
    """Bytes of the UTF-8 character at ``at``; 0 if it is invalid, or cut by a boundary."""
    lead = data[at]
    size = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if starts is not None and any(starts[i] for i in range(at + 1, min(at + size, len(data)))):
        return 0
    try:
        data[at : at + size].decode()
    except UnicodeDecodeError:
        return 0
    return size


def _standing(char: str, begins_patch: bool) -> str:
    """A mark that would sit on the patch before gets a dotted circle to sit on."""
    return f"◌{char}" if begins_patch and unicodedata.category(char)[0] == "M" else char
