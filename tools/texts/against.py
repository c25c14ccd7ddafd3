"""Which documents share a passage with text that evaluates?"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from blt.errors import UserError
from blt.evals.overlap import blocks, holds


def evaluated(paths: Sequence[Path]) -> np.ndarray:
    """Hashes of the 50-byte blocks of every line, and of every string in JSON, under some paths.

    Raises:
        UserError: a path that holds nothing.
    """
    found = []
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise UserError(f"{path}: no files to check against")
        found += [text for file in files for text in _texts(file.name, file.read_bytes())]
    return blocks(found)


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


def apart(texts: Sequence[str], evaluation: np.ndarray) -> list[str]:
    """The documents of which no 50 bytes are a block of the evaluation."""
    documents = [text.encode(errors="replace") for text in texts]
    if not holds(b"\n".join(documents), evaluation):  # no block has a line's end in it
        return list(texts)
    pairs = zip(texts, documents, strict=True)
    return [text for text, data in pairs if not holds(data, evaluation)]
