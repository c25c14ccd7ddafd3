"""What tests of prepared folders have in common: text to prepare, and what became of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blt.data.manifest import MANIFEST
from blt.data.shards import ShardSegments


def write_lines(path: Path, documents: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return str(path)


def rows(segments: ShardSegments) -> list[bytes]:
    return [segments.read(i, 0, segments.length(i)).data for i in range(len(segments))]


def content(folder: Path) -> tuple[list[str], Any]:
    manifest = json.loads((folder / MANIFEST).read_text())
    return [shard["sha256"] for shard in manifest["shards"]], manifest
