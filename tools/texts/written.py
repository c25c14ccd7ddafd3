"""Lines packed into documents, and documents into files that are the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

SIZE = 4000  # bytes from which a document is full


def documents(lines: Iterable[str]) -> list[str]:
    """Lines in their order, as many to a document as fill it."""
    packed, size = [[]], 0  # type: list[list[str]], int
    for line in lines:
        if size >= SIZE:
            packed.append([])
            size = 0
        packed[-1].append(line)
        size += len(line.encode(errors="replace")) + 1
    return ["\n".join(of) for of in packed if of]


def write(path: Path, texts: Sequence[str]) -> str:
    """Write documents as gzipped JSON lines; return the sha256 of what is inside the gzip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    raw = data.encode(errors="replace")
    path.write_bytes(gzip.compress(raw, compresslevel=6, mtime=0))
    return hashlib.sha256(raw).hexdigest()


def read(path: Path) -> list[str]:
    """The documents of a file."""
    return [json.loads(line)["text"] for line in gzip.decompress(path.read_bytes()).splitlines()]
