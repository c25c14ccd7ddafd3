"""Put a trained entropy model into the package, its weights stored as bfloat16 to keep it small.

python tools/ship_entropy_model.py runs/entropy-pretrained/checkpoint
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import blt
from blt.pretrained import PATCHING, read_patching, save_patching

SHIPPED = Path(__file__).parents[1] / "src" / "blt" / "assets" / "entropy_model"
LIMIT = 3_000_000  # bytes


def main(folder: str) -> None:
    patching = read_patching(Path(folder) / PATCHING)
    model = blt.load(folder).to(torch.bfloat16)
    SHIPPED.parent.mkdir(parents=True, exist_ok=True)
    model.save(SHIPPED)
    save_patching(SHIPPED, patching)
    size = sum(file.stat().st_size for file in SHIPPED.iterdir())
    if size > LIMIT:
        raise SystemExit(f"{SHIPPED}: {size} bytes, more than {LIMIT}; train a smaller one")
    print(f"{SHIPPED}: {size} bytes, {patching}")


if __name__ == "__main__":
    main(*sys.argv[1:])
