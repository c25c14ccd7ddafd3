"""Text cut into patches, for a terminal with colours or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

from rich.text import Text

from blt.report.console import Console
from blt.texts.glyphs import glyphs

SEPARATOR = "│"
# Both colours are always set, so that it reads on dark terminals and on light ones.
ALTERNATING = ("#10202c on #b9d9f0", "#2c2210 on #f6dca6")
# From certain to surprised: one hue, ever stronger.
HEAT = ("#f7f3ec", "#fbe3c8", "#fccf9e", "#fbb573", "#f5954b", "#e6742c", "#cb5416", "#a33b0c")
HEAT_STEP = 0.8  # bits of entropy per colour

ColourBy = Literal["patch", "entropy"]


def render_patches(
    patches: Sequence[bytes],
    entropies: Sequence[float] | None = None,
    *,
    colour_by: ColourBy = "patch",
    colour: bool = True,
) -> Text:
    r"""Patches as rich text; every byte is visible, ``\xff`` where it has no character.

    Args:
        patches: the bytes of each patch; empty ones (the patch of BOS) are left out.
        entropies: nats, per byte: how uncertain that byte was before it was read.
        colour_by: "patch" alternates two backgrounds; "entropy" shades each patch by the entropy of
            its first byte and underlines that byte; without entropies it is as "patch".
        colour: False separates patches by ``│`` instead.
    """
    data = b"".join(patches)
    firsts = list(accumulate((len(patch) for patch in patches), initial=0))[:-1]
    first_set = {at for at, patch in zip(firsts, patches, strict=True) if patch}
    by_entropy = colour and colour_by == "entropy" and entropies is not None
    text = Text(end="")
    style, index = "", -1
    for glyph in glyphs(data, [at in first_set for at in range(len(data))]):
        if glyph.at in first_set:
            index += 1
            if not colour:
                text.append(SEPARATOR if index else "")
            elif by_entropy and entropies is not None:
                style = heat_style(float(entropies[glyph.at]))
            else:
                style = ALTERNATING[index % 2]
        marks = " italic" if style and not glyph.plain else ""
        if by_entropy and glyph.at in first_set:
            marks += " underline"  # neighbours may have the same shade
        text.append(glyph.text, style + marks)
        # The newline itself stays unstyled: terminals smear a background to the margin.
        text.append("\n" if glyph.is_newline else "")
    return text


def print_patches(
    console: Console,
    patches: Sequence[bytes],
    entropies: Sequence[float] | None = None,
    *,
    colour_by: ColourBy = "patch",
) -> None:
    """Print patches, coloured if ``console`` has colours; lines are left for it to wrap."""
    colour = console.color_system is not None and not console.no_color
    text = render_patches(patches, entropies, colour_by=colour_by, colour=colour)
    console.print(text, soft_wrap=True, end="" if text.plain.endswith("\n") else "\n")


def legend() -> Text:
    """The scale of ``colour_by="entropy"``."""
    text = Text("bits at the first byte: ", end="")
    for level, background in enumerate(HEAT):
        text.append(f" {level * HEAT_STEP:.1f} ", f"{_ink(level)} on {background}")
    return text


def heat_style(nats: float) -> str:
    """Rich style for an entropy in nats; one that is not a number gets the lowest."""
    bits = nats / math.log(2)
    level = int(min(max(bits / HEAT_STEP, 0), len(HEAT) - 1)) if math.isfinite(bits) else 0
    return f"{_ink(level)} on {HEAT[level]}"


def summary_line(patches: Sequence[bytes], entropies: Sequence[float] | None = None) -> str:
    """Bytes, patches, mean patch size and mean entropy in bits per byte, in one line."""
    sizes = [len(patch) for patch in patches if patch]
    size, count = sum(sizes), len(sizes)
    parts = [_count(size, "byte", "bytes"), _count(count, "patch", "patches")]
    if count:
        parts.append(f"{size / count:.2f} bytes per patch")
    if count and entropies is not None:
        mean = math.fsum(float(nats) for nats in entropies) / size
        parts.append(f"mean entropy {mean / math.log(2):.2f} bits per byte")
    return " · ".join(parts)


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"


def _ink(level: int) -> str:
    return "#ffffff" if level >= len(HEAT) - 2 else "#1c1409"
