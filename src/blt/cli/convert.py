"""``blt convert``: a model in another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from blt.cli.output import say


def convert(
    source: Positional[str],
    out: Positional[Path],
    /,
    *,
    to: Literal["blt", "transformers", "meta"] = "blt",
    entropy_model: str | None = None,
    precision: Literal["float32", "bfloat16", "int8"] | None = None,
    merge: Path | None = None,
) -> None:
    """Write a model in another layout: ours, that of transformers, or Meta's.

    Args:
        source: Model folder in any of the layouts, or a hub id such as itazap/blt-1b-hf.
        out: Folder to make.
        to: Layout to write.
        entropy_model: Of a BLT of Meta's: folder or hub id of its entropy model.
        precision: Of the weights; int8, with a scale for each row, is of our own layout alone. Left
            out: as they are, bit for bit ("pretrained": float32).
        merge: Folder of an adapter (LoRA) for the model, such as RUN/checkpoint, to add to its
            weights.
    """
    from blt.checkpoint.convert import convert as run

    run(source, out, to, entropy_model=entropy_model, precision=precision, merge=merge)
    say(out)
