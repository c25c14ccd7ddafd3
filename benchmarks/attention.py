"""Causal attention of a training step on a CPU: tiles in C++ beside blocks of PyTorch's operations.

    python -m benchmarks attention [FILE.json]

Both in one process, in turns, on the same numbers: forward, and backward with the probabilities
computed again. The fastest turn of each counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import about
from benchmarks.report import print_table, report
from blt.errors import UserError
from blt.model.kernels import blocks, tiles
from blt.report.console import Console

# Documents, their rows, heads, a head's width, window
SHAPES = {
    "bytes of a small BLT": (8, 2048, 3, 32, 128),
    "bytes, a wide window": (8, 2048, 4, 32, 512),
    "patches of a small BLT": (8, 450, 4, 64, None),
    "one long document": (1, 8192, 4, 64, None),
}


def main(file: Path | None, as_json: bool, turns: int) -> None:
    """Measure, and print a table, JSON or both.

    Args:
        file: also write JSON here.
        as_json: print JSON, unless there is a file, and the table to standard error.
        turns: of each.

    Raises:
        UserError: nothing in C++ can run here.
    """
    report(partial(collect, turns), show, file, as_json)


def collect(turns: int, console: Console) -> dict[str, Any]:
    """All measurements as plain data."""
    if tiles.library() is None:
        raise UserError("attention in C++ needs a compiler (c++), and BLT_NATIVE not to be 0")
    results: dict[str, Any] = {"machine": about(), "shapes": {}}
    for name, shape in SHAPES.items():
        with console.status(name):
            results["shapes"][name] = {"shape": shape, "milliseconds": measure(*shape, turns)}
    return results


def measure(
    documents: int, rows: int, heads: int, dim: int, window: int | None, turns: int
) -> dict[str, float]:
    """Milliseconds of the fastest turn of each."""
    torch.manual_seed(0)
    offsets = tuple(range(0, documents * rows + 1, rows))
    q, k, v, grad = torch.randn(4, offsets[-1], heads, dim).unbind()
    q = q * dim**-0.5
    jobs: dict[str, Callable[[], Any]] = {
        "tiles, forward": lambda: tiles.attention(q, k, v, offsets, window),
        "blocks, forward": lambda: blocks.block_attention(q, k, v, offsets, window),
        "tiles, backward": lambda: tiles.attention_backward(grad, q, k, v, offsets, window),
        "blocks, backward": lambda: blocks.block_attention_backward(grad, q, k, v, offsets, window),
    }
    took: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(turns + 1):
        for name, job in jobs.items():
            begun = time.perf_counter()
            job()
            took[name].append(time.perf_counter() - begun)
    return {name: 1e3 * min(times[1:]) for name, times in took.items()}


def show(results: dict[str, Any], console: Console) -> None:
    """Print what :func:`collect` returned."""
    rows = []
    for name, of in results["shapes"].items():
        cells = [name]
        for way in ("forward", "backward"):
            new, old = (of["milliseconds"][f"{form}, {way}"] for form in ("tiles", "blocks"))
            cells += [f"{old:.1f} ms", f"{new:.1f} ms", f"{old / new:.2f}×"]
        rows.append(cells)
    columns = ("forward, blocks", "C++", "", "backward, blocks", "C++", "")
    print_table(console, ("attention", *columns), rows)
