"""Text as an entropy heat-map with its patch boundaries, in HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from blt.texts.glyphs import Glyph, glyphs

LEVELS = 10  # CSS classes h0..h9
TOP_BITS = 5.0  # entropies from here on get the strongest colour


@dataclass(frozen=True)
class HeatText:
    """A stretch of text to draw, with one entropy and one boundary per byte."""

    data: bytes
    entropies: Sequence[float]  # nats, how uncertain byte i was before it was read
    starts: Sequence[bool]  # byte i starts a patch
    title: str = ""

    def __post_init__(self) -> None:
        if not len(self.data) == len(self.entropies) == len(self.starts):
            raise ValueError(
                f"one entropy and one start per byte, got {len(self.data)} bytes, "
                f"{len(self.entropies)} entropies, {len(self.starts)} starts"
            )


def heat_html(text: HeatText) -> str:
    """A ``<p class="heat">`` with one span per character, or per byte that is none."""
    spans = "".join(_span(text, glyph) for glyph in glyphs(text.data, text.starts))
    return f'<p class="heat">{spans}</p>'


def legend_html() -> str:
    """The colour scale, from certain to surprised."""
    cells = "".join(f'<i class="h{level}"></i>' for level in range(LEVELS))
    return (
        f'<p class="legend"><span>0 bits</span><span class="scale">{cells}</span>'
        f"<span>{TOP_BITS:g} bits or more</span>"
        '<span class="key"><b class="h4 s">a</b> starts a patch</span></p>'
    )


def level_of(nats: float) -> int:
    """Colour class of an entropy; one that is not a number counts as 0."""
    bits = nats / math.log(2)
    return int(min(max(bits / TOP_BITS, 0) * LEVELS, LEVELS - 1)) if math.isfinite(bits) else 0


def _span(text: HeatText, glyph: Glyph) -> str:
    where = range(glyph.at, glyph.at + len(glyph.data))
    bits = [float(text.entropies[i]) / math.log(2) for i in where]
    classes = f"h{level_of(max(float(text.entropies[i]) for i in where))}"
    classes += " s" if text.starts[glyph.at] else ""
    classes += "" if glyph.plain else " x"
    tip = f"{glyph.data.hex(' ')} · {', '.join(f'{b:.2f}' for b in bits)} bits"
    span = f'<span class="{classes}" title="{tip}">{html.escape(glyph.text)}</span>'
    return span + "\n" if glyph.is_newline else span
