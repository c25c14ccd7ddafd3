"""How much memory and time converting a checkpoint of a released shape takes.

    python -m benchmarks convert [FILE.json] [--work FOLDER] [--shapes 1b 7b]

The source is sparse: a header and a length, its zeros take no place on disk. What is written does:
9 GB for the 1B, 21 GB for the 7B. Each conversion is a process of its own, and its memory the
largest resident set that the system has seen of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

if __name__ == "__main__":  # python benchmarks/convert.py is python -m benchmarks convert
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmarks.__main__ import main as command

    raise SystemExit(command(["convert", *sys.argv[1:]]))

import torch

from benchmarks.report import earlier, write
from benchmarks.shape import paper
from blt.checkpoint.convert import LAYOUTS
from blt.checkpoint.folders import Checkpoint, skeleton
from blt.files import stored
from blt.files.tensors import Spec, Tensors
from blt.lm import BLT
from blt.model.config import Config

RECIPES = {"1b": "blt-1b", "7b": "blt-8b"}
# shape, from, to; what was written is the next one's source
CHAINS = {
    "1b": ["transformers", "blt", "transformers", "meta", "blt"],
    "7b": ["transformers", "blt"],
}


class Zeros(Tensors):
    """A model's tensors in bfloat16, of which only the shapes matter."""

    def __init__(self, model: torch.nn.Module) -> None:
        named = model.state_dict().items()
        self.specs = {name: Spec(torch.bfloat16, tuple(t.shape)) for name, t in named}


def released(name: str) -> Config:
    """A shape of the paper; feed-forward widths rounded as Meta's layout needs it."""
    model = paper(RECIPES[name])
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


def main(file: Path | None, work: Path | None, shapes: Sequence[str]) -> None:
    results = earlier(file)
    for shape in shapes or CHAINS:
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            chain = CHAINS[shape]
            source = Path(scratch) / "0"
            write_sparse(source, released(shape), chain[0])
            for number, (before, to) in enumerate(pairwise(chain), 1):
                out = Path(scratch) / str(number)
                name = f"{shape}, {before} to {to}"
                results[name] = measure(source, out, to)
                shutil.rmtree(source)
                source = out
                gigabytes = {k: round(v / 1e9, 2) for k, v in results[name].items() if "bytes" in k}
                print(f"{name}: {results[name]['seconds']:.0f} s, {gigabytes}", flush=True)
    write(file, results)
