"""Patches as HTML, for notebooks: each in a colour, any bytes visible and none of them markup."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import accumulate

from blt.texts.glyphs import glyphs
from blt.texts.printable import printable

MOST = 4096  # bytes that are drawn: of more, a notebook gets slow
# Both colours are set, so that it reads on dark pages and on light ones.
COLOURS = ("background:#b9d9f0;color:#10202c", "background:#f6dca6;color:#2c2210")
BLOCK = "font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.6"


def picture(
    patches: Sequence[bytes], entropies: Sequence[float] | None = None, caption: str = ""
) -> str:
    """HTML of a text in patches, and a line about it; at most ``MOST`` bytes are drawn.

    Args:
        patches: the bytes of each; an empty one, such as that of BOS, is left out.
        entropies: nats of the prediction of each byte, for the tips; None: not known.
        caption: what follows the numbers.
    """
    kept = [patch for patch in patches if patch]
    firsts = list(accumulate(map(len, kept), initial=0))
    size = firsts.pop()
    data = b"".join(kept)[:MOST]
    starts = [False] * len(data)
    for first in firsts:
        if first < len(data):
            starts[first] = True
    drawn = [""] * sum(starts)
    index = -1
    for glyph in glyphs(data, starts):
        index += starts[glyph.at]
        drawn[index] += html.escape(printable(glyph.text)) + ("\n" if glyph.is_newline else "")
    spans = (
        f'<span style="{COLOURS[number % 2]}" title="{_tip(patch, first, entropies)}">{text}</span>'
        for number, (patch, first, text) in enumerate(zip(kept, firsts, drawn, strict=False))
    )
    more = f" … {size - MOST:,} bytes more" if size > MOST else ""
    mean = f", {size / len(kept):.2f} bytes each" if kept else ""
    line = " · ".join(filter(None, [f"{size:,} bytes in {len(kept):,} patches{mean}", caption]))
    return f'<div style="{BLOCK}">{"".join(spans)}{more}</div><small>{html.escape(line)}</small>'


def _tip(patch: bytes, first: int, entropies: Sequence[float] | None) -> str:
    """The patch's bytes, and how unsure the first one was."""
    shown = patch[:32].hex(" ") + (" …" if len(patch) > 32 else "")
    if entropies is None:
        return shown
    return f"{shown} · {entropies[first] / math.log(2):.2f} bits"
