"""Which lines share a passage with text that evaluates?

A passage is 50 letters. A character counts as one of them, a kana or a Hangul syllable as two and a
Chinese character as three: so sentences that say the same are about as long in every script, and
50 letters are as much of one. (50 bytes were two words of Tamil, and 50 characters more than three
of four Chinese sentences have.)
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blt.errors import UserError
from blt.evals.overlap import blocks_of, hold

# First and last code point, and the letters that one stands for.
WIDE = (
    (0x3041, 0x30FF, 2),  # kana
    (0xAC00, 0xD7A3, 2),  # Hangul syllables
    (0x3400, 0x9FFF, 3),  # Chinese characters
    (0xF900, 0xFAFF, 3),
    (0x20000, 0x3FFFF, 3),
)


def evaluated(paths: Sequence[Path]) -> np.ndarray:
    """Hashes of the 50-letter blocks of every line, and of every string in JSON, under some paths.

    Raises:
        UserError: a path that holds nothing.
    """
    found = []
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise UserError(f"{path}: no files to check against")
        found += [text for file in files for text in _texts(file.name, file.read_bytes())]
    return blocks_of([letters(text.decode(errors="replace")) for text in found])


def _texts(name: str, data: bytes) -> Iterator[bytes]:
    if name.endswith(".gz"):
        yield from _texts(name[:-3], gzip.decompress(data))
    elif name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for inner in sorted(packed.namelist()):
                yield from _texts(inner, packed.read(inner))
    elif name.endswith((".json", ".jsonl")):
        for line in [data] if name.endswith(".json") else data.splitlines():
            for text in _strings(json.loads(line) if line.strip() else None):
                yield from text.encode().splitlines()
    elif not name.endswith(".md") and "LICENSE" not in name:
        yield from data.splitlines()


def _strings(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, list | dict):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _strings(value)


def letters(text: str) -> np.ndarray:
    """Code points, each as often as the letters that it stands for  # [n] uint32"""
    codes = np.frombuffer(text.encode("utf-32-le", errors="replace"), dtype=np.uint32)
    counts = np.ones(len(codes), dtype=np.int64)
    for first, last, count in WIDE:
        counts[(codes >= first) & (codes <= last)] = count
    return np.repeat(codes, counts)


class Apart(NamedTuple):
    """Documents without the lines that evaluate."""

    texts: list[str]  # those that are left
    documents: int  # that had such lines
    lines: int  # that were dropped


def apart(texts: Sequence[str], evaluation: np.ndarray) -> Apart:
    """Drop the lines that hold a block of the evaluation, and documents of which none is left."""
    lines = [text.split("\n") for text in texts]
    held = iter(hold([letters(line) for of in lines for line in of], evaluation))
    kept = [[line for line in of if not next(held)] for of in lines]
    dropped = [len(before) - len(after) for before, after in zip(lines, kept, strict=True)]
    left = ["\n".join(of) for of in kept if of]
    return Apart(left, sum(count > 0 for count in dropped), sum(dropped))
