"""Held-out bits per byte of a model inside the package, per kind of text, as Markdown.

    python tools/score.py entropy_model ../shared/data
    python tools/score.py blt ../shared/data [DEVICE]

DEVICE is auto (a GPU where there is one; left out: this), cpu, cuda, or cuda:1.

None of these texts was trained on: FLORES-200 devtest, books by other authors, other PEPs, other
speeches, and the part of this Python's documentation and source that the recipe holds out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from blt.checkpoint.pretrained import PATCHING, read_patching
from blt.checkpoint.pretrained import shipped as folder_of
from blt.data import read, split
from blt.lm import LanguageModel, load
from blt.machine.precision import choose_device
from blt.model.transformer import CausalTransformer
from blt.patching import PatchingConfig
from blt.patching.calibration import mean_patch_size
from blt.scoring.bits import bits_per_byte

LIMIT = 65536  # bytes of each kind


def shipped(
    name: str, device: torch.device
) -> tuple[LanguageModel, LanguageModel | None, PatchingConfig, float, int]:
    """What is scored, what cuts and how, the recipe's held-out share, bytes of context."""
    if name == "blt":
        model = load(device=device)
        return model, model.entropy_model, model.config.patching, 0.02, 2048
    with folder_of(name) as folder:
        model, patching = load(folder, device).float(), read_patching(folder / PATCHING)
    assert isinstance(model, CausalTransformer)
    return model, model, patching, 0.05, 1024


def kinds(data: Path, heldout: float) -> Iterator[tuple[str, list[bytes]]]:
    """Name and documents of every kind of held-out text."""
    python = split(read(("builtin:python",)).documents, heldout).heldout
    yield "Python source and documentation", python
    yield "PEPs", read((str(data / "train-en-peps/peps.valid.jsonl.gz"),)).documents
    yield "English books", read((str(data / "valid-en-books/*.txt.gz"),)).documents
    for file in sorted((data / "bench-flores200/devtest").glob("*")):
        yield f"FLORES {file.name.split('.')[0]}", read((str(file),)).documents


def main(name: str, folder: str, device: str = "auto") -> None:
    place = choose_device(device, "DEVICE")
    model, entropy_model, patching, heldout, context = shipped(name, place)
    print("| text | bits per byte | bytes per patch |\n|---|---|---|")
    for kind, documents in kinds(Path(folder), heldout):
        score = bits_per_byte(model, documents, context_bytes=context, max_bytes=LIMIT)
        size = mean_patch_size(
            patching, entropy_model, documents, context_bytes=context, sample_bytes=LIMIT
        )
        print(f"| {kind} | {score:.3f} | {size:.2f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
