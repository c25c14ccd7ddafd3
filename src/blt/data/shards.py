"""Prepared text on disk: Arrow files that are mapped into memory, and a manifest.

==========================  ========================================================
``manifest.json``           written last: what there is, and what it was made of
``train.lengths``           and ``heldout.lengths``: of all segments, in their order
``units/00012/*.arrow``     shards of one source file: a row per segment of a document
==========================  ========================================================

Columns of a shard: ``text`` (the segment's bytes; a byte id is the byte + 4), ``following`` (the
id after it: the document's next byte, or EOS), and, if they were asked for, ``entropies`` (nats, of
the prediction of each byte and of the one after the segment, given the document before it).

Lengths are little-endian uint32: twice a segment's bytes, and 1 more where a document ends. They
are apart because every process plans the batches of all, for which it would open every shard.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from blt import vocab
from blt.data.packing import needed
from blt.data.segments import Piece
from blt.errors import UserError

FORMAT = "blt-shards-1"
MANIFEST = "manifest.json"
TRAIN, HELDOUT = "train", "heldout"
OPEN_SHARDS = 256  # mapped at the same time


@dataclass(frozen=True)
class ShardInfo:
    """One shard, as the manifest lists it."""

    file: str  # relative to the manifest
    split: str
    rows: int
    bytes: int  # of text
    size: int  # of the file
    sha256: str


class ShardWriter:
    """Collects segments, and writes them as one file."""

    def __init__(self) -> None:
        self.bytes = 0
        self._texts: list[bytes] = []
        self._following: list[int] = []
        self._entropies: list[np.ndarray] = []

    def add(self, piece: Piece) -> None:
        self.bytes += len(piece.data)
        self._texts.append(piece.data)
        self._following.append(piece.following)
        if piece.entropies is not None:
            self._entropies.append(piece.entropies)

    def write(self, path: Path, split: str) -> ShardInfo:
        """Write what was collected; ``file`` of the result is the name alone."""
        arrow = needed("pyarrow")
        columns = {
            "text": arrow.array(self._texts, arrow.large_binary()),
            "following": arrow.array(self._following, arrow.int16()),
        }
        if self._entropies:
            offsets = np.cumsum([0, *map(len, self._entropies)])
            columns["entropies"] = arrow.LargeListArray.from_arrays(
                arrow.array(offsets, arrow.int64()), arrow.array(np.concatenate(self._entropies))
            )
        batch = arrow.record_batch(columns)
        with (
            arrow.OSFile(str(path), "wb") as sink,
            arrow.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        rows, size = len(self._texts), path.stat().st_size
        return ShardInfo(path.name, split, rows, self.bytes, size, digest)


@dataclass(frozen=True)
class _Columns:
    """One shard in memory, as far as its pages were touched."""

    offsets: np.ndarray  # [rows + 1]
    text: np.ndarray  # [bytes] uint8
    following: np.ndarray  # [rows]
    entropies: np.ndarray | None  # [bytes + rows] float32


def is_prepared(source: str | os.PathLike[str]) -> bool:
    """Is this a folder written by ``blt prepare``?"""
    return (Path(source) / MANIFEST).is_file()


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
        UserError: missing, damaged, or of something else.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: missing or damaged ({error}); run blt prepare again: it goes on where it was"
        ) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path}: is not the manifest of a folder written by blt prepare")
    return manifest


class ShardSegments:
    """Segments of a prepared folder; see :class:`blt.data.segments.Segments`.

    Opening reads the manifest and maps lengths. Shards are mapped when something of them is read.

    Args:
        folder: written by ``blt prepare``.
        split: "train" or "heldout".
    """

    def __init__(self, folder: str | os.PathLike[str], split: str = TRAIN) -> None:
        self.folder, self.manifest = Path(folder), read_manifest(folder)
        self._shards = [ShardInfo(**s) for s in self.manifest["shards"] if s["split"] == split]
        self._ends = list(accumulate(shard.rows for shard in self._shards))
        self._lengths = _map_lengths(self.folder, split, len(self))
        self._columns = lru_cache(OPEN_SHARDS)(lambda n: _map_shard(self.folder, self._shards[n]))

    @property
    def entropy_model(self) -> str | None:
        """Identity of the model whose entropies are stored."""
        found = self.manifest["entropy_model"]
        return None if found is None else str(found["identity"])

    @property
    def num_bytes(self) -> int:
        return sum(shard.bytes for shard in self._shards)

    @property
    def fingerprint(self) -> str:
        hashes = " ".join(shard.sha256 for shard in self._shards)
        return hashlib.sha256(hashes.encode()).hexdigest()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def length(self, index: int) -> int:
        return int(self._lengths[index]) >> 1

    def ends(self, index: int) -> bool:
        return bool(self._lengths[index] & 1)

    def read(self, index: int, start: int, end: int) -> Piece:
        columns, row = self._at(index)
        first, last = int(columns.offsets[row]), int(columns.offsets[row + 1])
        following = int(columns.following[row])
        if first + end < last:
            following = int(columns.text[first + end]) + vocab.OFFSET
        entropies = None
        if columns.entropies is not None:  # a row has one more of them than bytes
            entropies = columns.entropies[first + row + start : first + row + end + 1]
        return Piece(columns.text[first + start : first + end].tobytes(), following, entropies)

    def sample(self, max_bytes: int) -> list[bytes]:
        """Whole segments from everywhere, about ``max_bytes`` together; the same every time."""
        if not len(self):
            return []
        count = max(1, min(len(self), int(max_bytes * len(self) / self.num_bytes)))
        picked = [index * len(self) // count for index in range(count)]
        return [self.read(index, 0, self.length(index)).data for index in picked]

    def _at(self, index: int) -> tuple[_Columns, int]:
        shard = bisect.bisect_right(self._ends, index)
        return self._columns(shard), index - (self._ends[shard - 1] if shard else 0)


def write_lengths(folder: Path, shards: Sequence[ShardInfo]) -> None:
    """Write the lengths of all segments of ``shards``, which lie in ``folder``."""
    for split in (TRAIN, HELDOUT):
        path = folder / f"{split}.lengths"
        with path.with_name(f"{path.name}.new").open("wb") as file:
            for shard in (shard for shard in shards if shard.split == split):
                columns = _map_shard(folder, shard)
                lengths = 2 * np.diff(columns.offsets) + (columns.following == vocab.EOS)
                file.write(lengths.astype("<u4").tobytes())
        os.replace(file.name, path)


def _map_lengths(folder: Path, split: str, count: int) -> np.ndarray:
    path = folder / f"{split}.lengths"
    try:
        if path.stat().st_size != 4 * count:
            raise ValueError(f"{path.stat().st_size} bytes, the manifest says {4 * count}")
        return np.asarray(np.memmap(path, "<u4", "r")) if count else np.empty(0, "<u4")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: missing or damaged ({error}); run blt prepare again with the same options: "
            "it goes on where it was"
        ) from None


def _map_shard(folder: Path, shard: ShardInfo) -> _Columns:
    arrow, path = needed("pyarrow"), folder / shard.file
    try:
        if path.stat().st_size != shard.size:
            raise ValueError(f"{path.stat().st_size} bytes, the manifest says {shard.size}")
        batch = arrow.ipc.open_file(arrow.memory_map(str(path))).get_batch(0)
        if batch.num_rows != shard.rows:
            raise ValueError(f"{batch.num_rows} rows, the manifest says {shard.rows}")
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise UserError(
            f"{path}: missing or damaged ({error}); delete {folder} and run blt prepare again"
        ) from None
    _, offsets, text = batch.column("text").buffers()
    entropies = None
    if "entropies" in batch.schema.names:
        entropies = batch.column("entropies").values.to_numpy()
    return _Columns(
        np.frombuffer(offsets, np.int64, batch.num_rows + 1),
        np.frombuffer(text, np.uint8) if text is not None else np.empty(0, np.uint8),
        batch.column("following").to_numpy(),
        entropies,
    )


def totals(shards: Sequence[ShardInfo]) -> dict[str, dict[str, int]]:
    """Rows and bytes of each split."""
    return {
        split: {
            "segments": sum(s.rows for s in shards if s.split == split),
            "bytes": sum(s.bytes for s in shards if s.split == split),
        }
        for split in (TRAIN, HELDOUT)
    }
