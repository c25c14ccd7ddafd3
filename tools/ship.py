"""Put a trained model into the package, its weights stored in few bits to keep it small.

python tools/ship.py runs/entropy-pretrained/checkpoint --precision int8  # with its θ
python tools/ship.py runs/blt-pretrained/checkpoint --precision int8
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from blt.checkpoint.convert import convert
from blt.checkpoint.open import open_checkpoint

ASSETS = Path(__file__).parents[1] / "src" / "blt" / "assets"
HOMES = {"byte": ("entropy_model", 3_000_000), "blt": ("blt", 20_000_000)}  # at most so many bytes


def main(folder: Path, precision: str, assets: Path = ASSETS) -> None:
    name, limit = HOMES[open_checkpoint(folder).kind]
    home = assets / name
    convert(folder, home, precision=precision)
    size = sum(file.stat().st_size for file in home.iterdir())
    if size > limit:
        raise SystemExit(f"{home}: {size} bytes, more than {limit}; train a smaller one")
    print(f"{home}: {size} bytes")


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", choices=("bfloat16", "int8"), default="bfloat16")
    given = parser.parse_args()
    main(given.folder, given.precision)
