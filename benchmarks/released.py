"""The released 1B's shape with random weights: loading, first byte, speed and memory.

    python -m benchmarks released [FILE.json] [--work FOLDER] [--only bfloat16 int8 transformers]

Writes 9 GB of bfloat16 weights in our layout, converts them to transformers' (another 9 GB), and
measures each way of running them in a process of its own, with nothing of the files in the page
cache. The prompt is 1024 random bytes; θ cuts patches of 4.5 bytes of its second half, and about as
many of what is written after it. Results are added to those in the file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # python benchmarks/released.py is python -m benchmarks released
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmarks.__main__ import main as command

    raise SystemExit(command(["released", *sys.argv[1:]]))

import torch
from torch import Tensor

import blt
from benchmarks.convert import Zeros
from benchmarks.generate_jobs import PROMPT, in_turns, random_bytes, start
from benchmarks.machine import apart
from benchmarks.report import earlier, write
from benchmarks.shape import calibrated_threshold, paper
from blt.checkpoint.convert import convert
from blt.checkpoint.folders import CONFIG, Checkpoint, skeleton
from blt.checkpoint.layouts import ours
from blt.files import stored
from blt.lm import BLT

PEER_BYTES = 1  # after the first; a full forward each, of half a minute
WAYS = ("bfloat16", "int8", "transformers")


class Random(Zeros):
    """Weights as at the start of training, made as they are asked for."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.generator = torch.Generator().manual_seed(0)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        shape = self.specs[name].shape
        if len(shape) == 1:  # of a norm
            return torch.ones(stop - start, dtype=torch.bfloat16)
        out = torch.empty(stop - start, *shape[1:], dtype=torch.bfloat16)
        return out.normal_(std=shape[-1] ** -0.5, generator=self.generator)


def make(path: str) -> None:
    """Write a checkpoint in our layout, never in memory as a whole."""
    folder = Path(path)
    config = paper("blt-1b")
    found = Checkpoint(str(folder), "blt", config, Random(skeleton(BLT, config, "")))
    folder.mkdir()
    stored.write(folder, found.tensors)
    write_config(folder, found)
    lm = blt.load(folder)
    assert isinstance(lm, BLT)
    entropies = lm.patch(random_bytes(PROMPT)).entropies
    assert entropies is not None
    threshold = calibrated_threshold(entropies[PROMPT // 2 :])
    patching = replace(config.patching, threshold=threshold)
    write_config(folder, replace(found, config=replace(config, patching=patching)))


def write_config(folder: Path, found: Checkpoint) -> None:
    (files, _) = ours.layout(found)[""]
    (folder / CONFIG).write_text(json.dumps(files[CONFIG]))


def ours_job(folder: str, precision: str) -> dict[str, Any]:
    from blt.generate import Engine

    begun = time.perf_counter()
    lm = blt.load(folder)
    loaded = time.perf_counter()
    engine = Engine(lm, precision=precision, max_batch=1, memory_budget=2**40)  # type: ignore[arg-type]
    del lm
    ready = time.perf_counter()
    start(engine, 1)
    first = time.perf_counter()
    result: dict[str, Any] = in_turns({"": engine})[""]
    return {
        "load_seconds": loaded - begun,
        "engine_seconds": ready - loaded,
        "first_byte_seconds": first - ready,
        **result,
    }


def peer_job(folder: str) -> dict[str, Any]:
    from transformers import BltForCausalLM

    begun = time.perf_counter()
    model = BltForCausalLM.from_pretrained(folder).eval()
    loaded = time.perf_counter()
    ids, times = torch.tensor([[byte + 4 for byte in random_bytes(PROMPT)]]), []
    with torch.inference_mode():
        for _ in range(1 + PEER_BYTES):
            at = time.perf_counter()
            logits = model(input_ids=ids, use_cache=False).logits[0, -1]
            ids = torch.cat((ids, logits[4:].argmax()[None, None] + 4), 1)
            times.append(time.perf_counter() - at)
    return {
        "load_seconds": loaded - begun,
        "first_byte_seconds": times[0],
        "bytes_per_second": PEER_BYTES / sum(times[1:]),
    }


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    os.sync()
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory() -> dict[str, int]:
    """Peak resident bytes, and which of those there are now are mapped files, in the page cache."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kilobytes = {"peak_bytes": "VmHWM", "own_bytes": "RssAnon", "mapped_bytes": "RssFile"}
    return {name: int(lines[key].split()[0]) * 1024 for name, key in kilobytes.items()}


def measure(way: str, path: str) -> dict[str, Any]:
    """A model folder run in one of :data:`WAYS`."""
    result = peer_job(path) if way == "transformers" else ours_job(path, way)
    return {**result, **memory()}


def main(file: Path | None, work: Path | None, only: Sequence[str]) -> None:
    results = earlier(file)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        made = Path(scratch) / "blt"
        apart(make, path=str(made))
        for way in only or WAYS:
            folder = made
            if way == "transformers":
                folder = Path(scratch) / way
                convert(made, folder, "transformers")
            forget(folder)
            results[way] = apart(measure, way=way, path=str(folder))
            print(way, {key: round(value, 3) for key, value in results[way].items()}, flush=True)
            write(file, results)
