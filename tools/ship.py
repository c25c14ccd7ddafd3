"""Put a trained model into the package, its weights stored as bfloat16 to keep it small.

python tools/ship.py runs/entropy-pretrained/checkpoint   # an entropy model, and its θ
python tools/ship.py runs/blt-pretrained/checkpoint       # a BLT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import blt
from blt.checkpoint.pretrained import PATCHING, read_patching, save_patching

ASSETS = Path(__file__).parents[1] / "src" / "blt" / "assets"
HOMES = {"byte": ("entropy_model", 3_000_000), "blt": ("blt", 20_000_000)}  # at most so many bytes


def main(folder: str) -> None:
    model = blt.load(folder).to(torch.bfloat16)
    name, limit = HOMES[model.kind]
    home = ASSETS / name
    model.save(home)
    if model.kind == "byte":
        save_patching(home, read_patching(Path(folder) / PATCHING))
    size = sum(file.stat().st_size for file in home.iterdir())
    if size > limit:
        raise SystemExit(f"{home}: {size} bytes, more than {limit}; train a smaller one")
    print(f"{home}: {size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
