"""How much memory and time converting a checkpoint of a released shape takes.

    python benchmarks/convert.py [results/benchmarks/convert.json] [--work FOLDER] [--shapes 1b 7b]

The source is sparse: a header and a length, its zeros take no place on disk. What is written does:
9 GB for the 1B, 21 GB for the 7B. Each conversion is a process of its own, and its memory the
largest resident set that the system has seen of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from blt.checkpoint.convert import LAYOUTS
from blt.checkpoint.folders import Checkpoint, skeleton
from blt.files import stored
from blt.files.tensors import Spec, Tensors
from blt.lm import BLT
from blt.model.config import Config
from blt.train.recipe import read_recipe

RECIPES = {"1b": "recipes/paper/blt-1b.toml", "7b": "recipes/paper/blt-8b.toml"}
# shape, from, to; what was written is the next one's source
CHAINS = {
    "1b": ["transformers", "blt", "transformers", "meta", "blt"],
    "7b": ["transformers", "blt"],
}


class Zeros(Tensors):
    """Tensors of which only the shapes matter."""

    def __init__(self, model: torch.nn.Module) -> None:
        named = model.state_dict().items()
        self.specs = {name: Spec(torch.bfloat16, tuple(t.shape)) for name, t in named}


def released(name: str) -> Config:
    """The shape of the recipe; feed-forward widths rounded as Meta's layout needs it."""
    model = read_recipe(Path(RECIPES[name]), ()).model
    assert isinstance(model, Config)
    return replace(model, encoder_ff_dim=model.decoder_ff_dim)


def write_sparse(folder: Path, config: Config, to: str) -> None:
    """A model folder whose weights are holes."""
    zeros = Zeros(skeleton(BLT, config, str(folder)))
    (files, tensors), *_ = LAYOUTS[to](Checkpoint("", "blt", config, zeros)).values()
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data))
    header = stored.header(tensors, list(tensors.specs))
    with (folder / stored.WEIGHTS).open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(spec.nbytes for spec in tensors.specs.values()))


def measure(source: Path, out: Path, to: str) -> dict[str, float]:
    """Seconds, and peak resident bytes of the process."""
    command = [sys.executable, "-m", "blt", "convert", str(source), str(out), "--to", to]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    size = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024, "written_bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--shapes", nargs="+", default=list(CHAINS))
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for shape in options.shapes:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            chain = CHAINS[shape]
            source = Path(work) / "0"
            write_sparse(source, released(shape), chain[0])
            for number, (before, to) in enumerate(pairwise(chain), 1):
                out = Path(work) / str(number)
                name = f"{shape}, {before} to {to}"
                results[name] = measure(source, out, to)
                shutil.rmtree(source)
                source = out
                gigabytes = {k: round(v / 1e9, 2) for k, v in results[name].items() if "bytes" in k}
                print(f"{name}: {results[name]['seconds']:.0f} s, {gigabytes}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
