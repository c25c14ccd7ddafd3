"""Held-out bits per byte of the shipped entropy model, per language and kind of text, as Markdown.

    python tools/score_entropy_model.py ../shared/data

None of these texts was trained on: FLORES-200 devtest, books by other authors, other PEPs,
and the 5 % of this Python's documentation and source that the recipe holds out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from blt.data import read, split
from blt.evals.bpb import bits_per_byte
from blt.lm import ByteLM
from blt.pretrained import load_shipped
from blt.train.calibration import mean_patch_size

LIMIT = 65536  # bytes of each kind


def kinds(data: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Name and documents of every kind of held-out text."""
    python = split(read(("builtin:python",)).documents, 0.05).heldout
    yield "Python source and documentation", python
    yield "PEPs", read((str(data / "train-en-peps/peps.valid.jsonl.gz"),)).documents
    yield "English books", read((str(data / "valid-en-books/*.txt.gz"),)).documents
    for file in sorted((data / "bench-flores200/devtest").glob("*")):
        yield f"FLORES {file.name.split('.')[0]}", read((str(file),)).documents


def main(folder: str) -> None:
    patcher = load_shipped()
    model = patcher.entropy_model
    assert isinstance(model, ByteLM)
    print("| text | bits per byte | bytes per patch |\n|---|---|---|")
    for name, documents in kinds(Path(folder)):
        score = bits_per_byte(model, documents, context_bytes=1024, max_bytes=LIMIT)
        size = mean_patch_size(
            patcher.config, model, documents, context_bytes=1024, sample_bytes=LIMIT
        )
        print(f"| {name} | {score:.3f} | {size:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
