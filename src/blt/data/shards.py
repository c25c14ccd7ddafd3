"""Prepared text on disk: Arrow files that are mapped into memory, and a manifest.

==========================  ========================================================
``manifest.json``           written last: what there is, and what it was made of
``train.lengths``           and ``heldout.lengths``: of all segments, in their order
``units/00012/*.arrow``     shards of one source file: a row per segment of a document
==========================  ========================================================

Columns of a shard: ``text`` (the segment's bytes; a byte id is the byte + 4), ``following`` (the
id after it: the document's next byte, or EOS), and, if they were asked for, ``entropies`` (nats, of
the prediction of each byte and of the one after the segment, given the document before it).
Conversations and the like, of which only some is learned, add ``learned`` (where it begins and
ends, again and again) and ``specials`` (places of special ids in the text, and these).

Lengths are little-endian uint32: twice a segment's bytes, and 1 more where a document ends. They
are apart because every process plans the batches of all, for which it would open every shard.
"""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np

from blt import vocab
from blt.data.manifest import MANIFEST, UNITS, read_manifest
from blt.data.segments import Piece, piece_of
from blt.errors import UserError, needed
from blt.files import durable
from blt.files.checksums import digest
from blt.texts.marked import Marked, spans_of

TRAIN, HELDOUT = "train", "heldout"
MARKS = ("learned", "specials")  # columns of shards of which only some is learned
OPEN_SHARDS = 256  # mapped at the same time
# Up to so much of a split, each shard is compared with its checksum when it is first mapped, and
# its lengths when it is opened: seconds of a training. Of more, `blt verify` does it.
CHECKED_BYTES, CHECKED_LENGTHS = 2**33, 2**26


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
        self._learned: list[list[int]] = []
        self._specials: list[list[int]] = []
        self.marked = False

    def add(self, piece: Piece) -> None:
        self.bytes += len(piece.data)
        self._texts.append(piece.data)
        self._following.append(piece.following)
        if piece.entropies is not None:
            self._entropies.append(piece.entropies)
        asked = [(0, len(piece.data))] if piece.asked is None else spans_of(piece.asked)
        self._learned.append([*chain(*asked)])
        self._specials.append([*chain(*piece.specials)])
        self.marked |= piece.asked is not None

    def write(self, path: Path, split: str) -> ShardInfo:
        """Write what was collected; ``file`` of the result is the name alone."""
        arrow = needed("pyarrow", "data")
        columns = {
            "text": arrow.array(self._texts, arrow.large_binary()),
            "following": arrow.array(self._following, arrow.int16()),
        }
        if self._entropies:
            offsets = np.cumsum([0, *map(len, self._entropies)])
            columns["entropies"] = arrow.LargeListArray.from_arrays(
                arrow.array(offsets, arrow.int64()), arrow.array(np.concatenate(self._entropies))
            )
        if self.marked:
            for name, lists in zip(MARKS, (self._learned, self._specials), strict=True):
                columns[name] = arrow.array(lists, arrow.list_(arrow.int32()))
        batch = arrow.record_batch(columns)
        with (
            arrow.OSFile(str(path), "wb") as sink,
            arrow.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        rows, size = len(self._texts), path.stat().st_size
        return ShardInfo(path.name, split, rows, self.bytes, size, digest(path))


@dataclass(frozen=True)
class _Columns:
    """One shard in memory, as far as its pages were touched."""

    offsets: np.ndarray  # [rows + 1]
    text: np.ndarray  # [bytes] uint8
    following: np.ndarray  # [rows]
    entropies: np.ndarray | None  # [bytes + rows] float32
    learned: Any = None  # of pyarrow: pairs of each row
    specials: Any = None  # the same


def is_prepared(source: str | os.PathLike[str]) -> bool:
    """Is this a folder written by ``blt prepare``?"""
    folder, parts = Path(source), (UNITS, f"{TRAIN}.lengths", f"{HELDOUT}.lengths")
    # Others have files of that name too, such as the extensions of browsers.
    return (folder / MANIFEST).is_file() and any((folder / part).exists() for part in parts)


class ShardSegments:
    """Segments of a prepared folder; see :class:`blt.data.segments.Segments`.

    Opening reads the manifest and maps lengths. Shards are mapped when something of them is read,
    and checked then: against the lengths, and against their checksums up to CHECKED_BYTES.

    Args:
        folder: written by ``blt prepare``.
        split: "train" or "heldout".
    """

    def __init__(self, folder: str | os.PathLike[str], split: str = TRAIN) -> None:
        self.folder, self.manifest = Path(folder), read_manifest(Path(folder))
        self._shards = [ShardInfo(**s) for s in self.manifest["shards"] if s["split"] == split]
        self._ends = list(accumulate(shard.rows for shard in self._shards))
        noted = self.manifest.get("lengths") or {}
        self._lengths = _map_lengths(self.folder, split, len(self), noted.get(split))
        self.checked = sum(shard.size for shard in self._shards) <= CHECKED_BYTES
        self._unchecked = set(range(len(self._shards)) if self.checked else ())
        self._columns = lru_cache(OPEN_SHARDS)(self._map)

    @property
    def entropy_model(self) -> str | None:
        """Identity of the model whose entropies are stored."""
        found = self.manifest["entropy_model"]
        return None if found is None else str(found["identity"])

    @property
    def learn(self) -> str | None:
        """What is learned of conversations and the like, if there are any."""
        found = self.manifest.get("learn")
        return None if found is None else str(found)

    @property
    def num_bytes(self) -> int:
        return sum(shard.bytes for shard in self._shards)

    @property
    def fingerprint(self) -> str:
        hashes = " ".join(shard.sha256 for shard in self._shards)
        return hashlib.sha256(hashes.encode()).hexdigest()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def in_epoch(self, *_: int) -> ShardSegments:
        return self

    def length(self, index: int) -> int:
        return int(self._lengths[index]) >> 1

    def ends(self, index: int) -> bool:
        return bool(self._lengths[index] & 1)

    def stays_whole(self, _: int) -> bool:
        return self.learn is not None

    def read(self, index: int, start: int, end: int) -> Piece:
        columns, row = self._at(index)
        first, last = int(columns.offsets[row]), int(columns.offsets[row + 1])
        following = int(columns.following[row])
        if first + end < last:
            following = int(columns.text[first + end]) + vocab.OFFSET
        entropies = None
        if columns.entropies is not None:  # a row has one more of them than bytes
            entropies = columns.entropies[first + row + start : first + row + end + 1]
        if columns.learned is not None:
            text, last = self._marked(columns, row), int(columns.following[row])
            return replace(piece_of(text, start, end, last), entropies=entropies)
        return Piece(columns.text[first + start : first + end].tobytes(), following, entropies)

    def _marked(self, columns: _Columns, row: int) -> Marked:
        """A row of which only some is learned."""
        first, last = int(columns.offsets[row]), int(columns.offsets[row + 1])
        spans, specials = (_pairs(part, row) for part in (columns.learned, columns.specials))
        ends = int(columns.following[row]) == vocab.EOS
        return Marked(columns.text[first:last].tobytes(), spans, specials, ends)

    def sample(self, max_bytes: int) -> list[bytes]:
        """Whole segments from everywhere, about ``max_bytes`` together; the same every time."""
        if not len(self):
            return []
        count = max(1, min(len(self), int(max_bytes * len(self) / self.num_bytes)))
        picked = [index * len(self) // count for index in range(count)]
        return [self._text(index) for index in picked]

    def _text(self, index: int) -> bytes:
        columns, row = self._at(index)
        if columns.learned is not None:
            return self._marked(columns, row)
        return self.read(index, 0, self.length(index)).data

    def _map(self, number: int) -> _Columns:
        shard, first = self._shards[number], self._ends[number] - self._shards[number].rows
        columns = _map_shard(self.folder, shard, check=number in self._unchecked)
        self._unchecked.discard(number)
        if not np.array_equal(_lengths_of(columns), self._lengths[first : first + shard.rows]):
            raise UserError(
                f"{self.folder / shard.file}: has other segments than {shard.split}.lengths says; "
                f"{_again(self.folder)}"
            )
        return columns

    def _at(self, index: int) -> tuple[_Columns, int]:
        shard = bisect.bisect_right(self._ends, index)
        return self._columns(shard), index - (self._ends[shard - 1] if shard else 0)


def write_lengths(folder: Path, shards: Sequence[ShardInfo]) -> dict[str, str]:
    """Write the lengths of all segments of ``shards``, which lie in ``folder``.

    Returns:
        SHA-256 of the lengths of each split.
    """
    digests = {}
    for split in (TRAIN, HELDOUT):
        path = folder / f"{split}.lengths"
        with durable.beside(path) as new, new.open("wb") as file:  # closed before it is moved
            for shard in (shard for shard in shards if shard.split == split):
                file.write(_lengths_of(_map_shard(folder, shard)).tobytes())
        digests[split] = digest(path)
    return digests


def faults_of_shards(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """The files of a prepared folder, read whole, and what is wrong with each; None: nothing."""
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        yield folder / MANIFEST, str(error).removeprefix(f"{folder / MANIFEST}: ")
        return
    yield folder / MANIFEST, None
    shards = [ShardInfo(**shard) for shard in manifest["shards"]]
    noted = manifest.get("lengths") or {}
    for split in (TRAIN, HELDOUT):
        count = sum(shard.rows for shard in shards if shard.split == split)
        fault = _fault_of_lengths(folder / f"{split}.lengths", count, noted.get(split))
        yield folder / f"{split}.lengths", fault
    for shard in shards:
        yield folder / shard.file, _fault_of_shard(folder / shard.file, shard)


def _lengths_of(columns: _Columns) -> np.ndarray:
    """Lengths of a shard's segments, as they are stored  # [rows] uint32."""
    ends = columns.following == vocab.EOS
    return (2 * np.diff(columns.offsets) + ends).astype("<u4")


def _fault_of_lengths(path: Path, count: int, sha256: str | None) -> str | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != 4 * count:
        return f"{path.stat().st_size} bytes, the manifest says {4 * count}"
    return None if sha256 in (None, digest(path)) else "another SHA-256 than the manifest says"


def _fault_of_shard(path: Path, shard: ShardInfo) -> str | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != shard.size:
        return f"{path.stat().st_size} bytes, the manifest says {shard.size}"
    return None if shard.sha256 == digest(path) else "another SHA-256 than the manifest says"


def _again(folder: Path) -> str:
    return f"delete {folder} and run blt prepare again"


def _map_lengths(folder: Path, split: str, count: int, sha256: str | None) -> np.ndarray:
    path = folder / f"{split}.lengths"
    fault = _fault_of_lengths(path, count, sha256 if 4 * count <= CHECKED_LENGTHS else None)
    if fault is not None:
        raise UserError(
            f"{path}: missing or damaged ({fault}); run blt prepare again with the same options: "
            "it goes on where it was"
        )
    return np.asarray(np.memmap(path, "<u4", "r")) if count else np.empty(0, "<u4")


def _map_shard(folder: Path, shard: ShardInfo, check: bool = False) -> _Columns:
    arrow, path = needed("pyarrow", "data"), folder / shard.file
    try:
        if path.stat().st_size != shard.size:
            raise ValueError(f"{path.stat().st_size} bytes, the manifest says {shard.size}")
        if check and (fault := _fault_of_shard(path, shard)):
            raise ValueError(fault)
        batch = arrow.ipc.open_file(arrow.memory_map(str(path))).get_batch(0)
        if batch.num_rows != shard.rows:
            raise ValueError(f"{batch.num_rows} rows, the manifest says {shard.rows}")
        return _columns_of(batch)
    except (OSError, ValueError, KeyError, arrow.ArrowException) as error:
        raise UserError(f"{path}: missing or damaged ({error}); {_again(folder)}") from None


def _columns_of(batch: Any) -> _Columns:
    _, offsets, text = batch.column("text").buffers()
    entropies = None
    if "entropies" in batch.schema.names:
        entropies = batch.column("entropies").values.to_numpy()
    return _Columns(
        np.frombuffer(offsets, np.int64, batch.num_rows + 1),
        np.frombuffer(text, np.uint8) if text is not None else np.empty(0, np.uint8),
        batch.column("following").to_numpy(),
        entropies,
        *(batch.column(name) if name in batch.schema.names else None for name in MARKS),
    )


def _pairs(column: Any, row: int) -> list[tuple[int, int]]:
    found = column[row].as_py()
    return list(zip(found[::2], found[1::2], strict=True))


def totals(shards: Sequence[ShardInfo]) -> dict[str, dict[str, int]]:
    """Rows and bytes of each split."""
    return {
        split: {
            "segments": sum(s.rows for s in shards if s.split == split),
            "bytes": sum(s.bytes for s in shards if s.split == split),
        }
        for split in (TRAIN, HELDOUT)
    }
