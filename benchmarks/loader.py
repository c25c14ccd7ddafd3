"""How fast prepared text opens and batches come, where there is a terabyte of it.

    python -m benchmarks loader [FILE.json]

One shard of 64 MB with entropies is written, and a manifest that names it 16384 times: the index of
a terabyte, which is opened, and read at random places, as training does. One thread.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # python benchmarks/loader.py is python -m benchmarks loader
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmarks.__main__ import main as command

    raise SystemExit(command(["loader", *sys.argv[1:]]))

import numpy as np
import torch

from benchmarks.report import write
from blt import vocab
from blt.data import Loader
from blt.data.manifest import FORMAT, MANIFEST
from blt.data.segments import Piece
from blt.data.shards import TRAIN, ShardSegments, ShardWriter, write_lengths

SHARDS = 16384
SEGMENTS, SEGMENT_BYTES = 8192, 8192  # of a shard
BATCH_BYTES = 8192
PROCESSES = (1, 256)  # of which each plans the batches of all
SECONDS = 10.0  # of a measurement


def write_terabyte(folder: Path) -> None:
    generator, writer = np.random.default_rng(0), ShardWriter()
    for _ in range(SEGMENTS):
        entropies = np.ones(SEGMENT_BYTES + 1, np.float32)
        writer.add(Piece(generator.bytes(SEGMENT_BYTES), vocab.EOS, entropies))
    shard = writer.write(folder / "train-00001.arrow", TRAIN)
    # Hashes differ, as those of different shards would.
    shards = [asdict(replace(shard, sha256=f"{number:064x}")) for number in range(SHARDS)]
    manifest: dict[str, Any] = {"format": FORMAT, "shards": shards, "entropy_model": None}
    manifest |= {"options": {"newline_reset": False}, "splits": {}, "units": []}
    manifest |= {"documents": 0, "bytes": 0, "broken": 0}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    write_lengths(folder, [shard])
    lengths = (folder / "train.lengths").read_bytes()
    with (folder / "train.lengths").open("wb") as file:
        file.writelines(lengths for _ in range(SHARDS))


def opened(folder: Path, world: int = 1) -> Loader:
    sources = [ShardSegments(folder)]
    return Loader(sources, batch_bytes=BATCH_BYTES, context_bytes=SEGMENT_BYTES, world=world)


def speed(loader: Loader) -> float:
    """Bytes of text per second that one process makes batches of."""
    next(loader)
    start, size = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        size += next(loader).num_bytes
    return size / (time.perf_counter() - start)


def main(file: Path | None) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        write_terabyte(Path(scratch))
        start = time.perf_counter()
        loader = opened(Path(scratch))
        next(loader)
        results = {"seconds_to_first_batch": time.perf_counter() - start}
        del loader
        tracemalloc.start()
        loader = opened(Path(scratch))
        results["bytes_of_memory_opened"] = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            next(loader)
        results["bytes_of_memory_after_2000_batches"] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        for world in PROCESSES:
            results[f"bytes_per_second_of_{world}"] = speed(opened(Path(scratch), world))
    print(json.dumps(results, indent=1))
    write(file, results)
