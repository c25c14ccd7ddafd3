"""A cheap look at whether text helps: bits per byte of a count model of three bytes of context.

    python -m tools.texts.counted data/texts/text ../shared/data/bench-flores200/dev

Counts the first bytes of each language's text here, and prices FLORES' sentences in it: what such
text teaches about ordinary prose. Nothing is trained on FLORES. A byte at random costs 8 bits.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np

from tools.texts.languages import FLORES

ORDER = 3  # bytes of context
TRAIN, SCORED = 2_000_000, 60_000  # bytes


def keys(data: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each byte from ``ORDER`` on: its context as a number, and the same with the byte  # [n]"""
    n = len(data) - ORDER
    context = np.zeros(n, dtype=np.int64)
    for back in range(order, 0, -1):
        context = context * 256 + data[ORDER - back : ORDER - back + n]
    return context, context * 256 + data[ORDER:]


def bits_per_byte(train: bytes, heldout: bytes) -> float:
    """Witten and Bell's mixture of orders 0 to 3 over a uniform byte, counted in ``train``."""
    known = np.frombuffer(train, dtype=np.uint8).astype(np.int64)
    scored = np.frombuffer(heldout, dtype=np.uint8).astype(np.int64)
    chance = np.full(len(scored) - ORDER, 1 / 256)
    for order in range(ORDER + 1):
        contexts, pairs = (np.unique(of, return_counts=True) for of in keys(known, order))
        kinds = np.unique(pairs[0] >> 8, return_counts=True)  # different next bytes of a context
        context, pair = keys(scored, order)
        total, distinct = _looked_up(contexts, context), _looked_up(kinds, context)
        seen = total > 0
        mixed = (_looked_up(pairs, pair) + distinct * chance) / np.maximum(total + distinct, 1)
        chance = np.where(seen, mixed, chance)
    return float(-np.log2(chance).mean())


def _looked_up(table: tuple[np.ndarray, np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """The count of each of ``wanted``, zero where there is none."""
    values, counts = table
    at = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[at] == wanted, counts[at], 0)


def main(folder: str, flores: str) -> None:
    print("| FLORES | kB here | bits per byte |\n|---|---|---|")
    for path in sorted(Path(flores).glob("*.gz")):
        name = path.name.split(".")[0]
        files = sorted((Path(folder) / FLORES[name]).glob("*.jsonl.gz"))
        lines = [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]
        text = b"\n".join(json.loads(line)["text"].encode() for line in lines)
        price = bits_per_byte(text[:TRAIN], gzip.decompress(path.read_bytes())[:SCORED])
        print(f"| {name} | {len(text) / 1000:.0f} | {price:.3f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
