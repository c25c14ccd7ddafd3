"""Put a trained model into the package, its weights stored in few bits to keep it small.

python tools/ship.py runs/entropy-pretrained/checkpoint --precision int8  # with its θ
python tools/ship.py runs/blt-pretrained/checkpoint --precision int8
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from blt.checkpoint.convert import convert
from blt.checkpoint.folders import move_into_place, replace_folder
from blt.checkpoint.open import open_checkpoint

ASSETS = Path(__file__).parents[1] / "src" / "blt" / "assets"
HOMES = {"byte": ("entropy_model", 3_000_000), "blt": ("blt", 20_000_000)}  # at most so many bytes


def main(folder: Path, precision: str, assets: Path = ASSETS) -> None:
    kind = open_checkpoint(folder).kind
    if kind not in HOMES:
        raise SystemExit(f"{folder}: a {kind} model; the package holds a {' and a '.join(HOMES)}")
    name, limit = HOMES[kind]
    home = assets / name
    with replace_folder(home) as temporary:
        new = Path(temporary) / "new"
        convert(folder, new, precision=precision)
        size = sum(file.stat().st_size for file in new.iterdir())
        if size > limit:
            raise SystemExit(f"{home}: {size} bytes, more than {limit}; train a smaller one")
        move_into_place(new, home)
    print(f"{home}: {size} bytes")


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", choices=("bfloat16", "int8"), default="bfloat16")
    given = parser.parse_args()
    main(given.folder, given.precision)
