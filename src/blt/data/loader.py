"""A seeded, endless stream of packed training batches that can be left and taken up exactly.

The stream does not depend on how many processes share it: each takes every n-th batch of it, so a
training can go on with more or fewer of them, and no byte comes twice or never.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from blt import vocab
from blt.data.order import Permutation
from blt.data.segments import MemorySegments, Segments
from blt.errors import require
from blt.model.language import Batch
from blt.texts.marked import put_in


@dataclass
class Position:
    """Where one source's stream stands."""

    epoch: int = 0
    index: int = 0  # into this epoch's order of segments
    offset: int = 0  # bytes of that segment that were already given
    given: int = 0  # bytes so far


@dataclass
class _Stream:
    """One source, in the order of its epoch."""

    source: Segments
    weight: float
    key: tuple[int, int]
    at: Position

    def __post_init__(self) -> None:
        self._begin()

    def next_segment(self) -> None:
        self.at.index, self.at.offset = self.at.index + 1, 0
        if self.at.index == len(self.segments):
            self.at.index, self.at.epoch = 0, self.at.epoch + 1
            self._begin()

    def _begin(self) -> None:
        """An epoch: in an order of its own, and maybe with noise of its own."""
        self.segments = self.source.in_epoch(*self.key, self.at.epoch)
        self.order = Permutation(len(self.segments), *self.key, self.at.epoch)


class _Chunk(NamedTuple):
    """What is laid into a batch: bytes start..end of a segment, and EOS where it still fits."""

    segments: Segments  # of an epoch
    segment: int
    start: int
    end: int
    eos: bool


class Loader(Iterator[Batch]):
    """Endless batches of ``batch_bytes`` ids; every byte of a source once per epoch of it.

    Segments are documents of their own for the model, and shuffled anew in each epoch, so that a
    batch mixes documents even where they are whole books. The last segment of a batch is cut where
    the batch is full, and the next batch goes on there, after a BOS. One of which only some is
    learned is not cut: it begins the next batch, and this one has fewer ids.

    Args:
        sources: text to learn from.
        weights: share of each source's bytes in the stream; their sum does not matter. The next
            segment always comes from the source that lags most behind its share.
        batch_bytes: ids per batch, special ones included.
        context_bytes: bytes of the longest document of a batch.
        seed: of the order.
        rank: which of the processes that share the stream this one is.
        world: how many they are.
    """

    def __init__(
        self,
        sources: Sequence[Segments],
        weights: Sequence[float] | None = None,
        *,
        batch_bytes: int,
        context_bytes: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_bytes < 2 or context_bytes < 1:
            raise ValueError("batch_bytes must be at least 2 and context_bytes at least 1")
        self.sources, self.batch_bytes, self.context_bytes = sources, batch_bytes, context_bytes
        self.seed, self.rank, self.world = seed, rank, world
        self._weights = list(weights or [source.num_bytes for source in sources])
        self._begin([Position() for _ in sources])

    def __next__(self) -> Batch:
        plans = [self._plan() for _ in range(self.world)]
        return self._build(plans[self.rank], self.state())

    def state(self) -> dict[str, Any]:
        """Where the stream stands, for :meth:`restore`; fits in JSON."""
        return {"seed": self.seed, "sources": [asdict(stream.at) for stream in self._streams]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on exactly where a loader over the same sources stood, in any number of processes.

        Raises:
            UserError: a place that the sources do not have.
        """
        positions, count = [Position(**at) for at in state["sources"]], len(self.sources)
        require(len(positions) == count, f"a place in {len(positions)} sources of {count}")
        for at, source in zip(positions, self.sources, strict=True):
            require(at.index < len(source), f"segment {at.index} of {len(source)}: beyond the text")
        self.seed = state["seed"]
        self._begin(positions)
        for stream in self._streams:
            longest = stream.segments.length(stream.order[stream.at.index])
            inside = stream.at.offset < max(1, longest)
            require(inside, f"byte {stream.at.offset} of a segment of {longest}: beyond its end")

    @property
    def fingerprint(self) -> str:
        """A hash of the text and its shares, to which alone a state belongs."""
        parts = [f"{s.fingerprint}:{w}" for s, w in zip(self.sources, self._weights, strict=True)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def _begin(self, positions: Sequence[Position]) -> None:
        self._streams = [
            _Stream(source, weight, (self.seed, number), at)
            for number, (source, weight, at) in enumerate(
                zip(self.sources, self._weights, positions, strict=True)
            )
        ]

    def _plan(self) -> list[_Chunk]:
        """What the next batch is made of; reads lengths only."""
        chunks: list[_Chunk] = []
        room = self.batch_bytes
        while room:
            chunk = self._chunk(room, begins=not chunks)
            if chunk is None:
                break
            chunks.append(chunk)
            room -= 1 + chunks[-1].end - chunks[-1].start + chunks[-1].eos
        return chunks

    def _chunk(self, room: int, begins: bool) -> _Chunk | None:
        """None: what comes next stays whole, and finds no room behind what is there."""
        stream = self._next_stream()
        segment, start = stream.order[stream.at.index], stream.at.offset
        segments, last = stream.segments, stream.segments.length(segment)
        end = min(last, start + room - 1, start + self.context_bytes)
        tight = room < min(last - start, self.context_bytes) + 2  # with BOS and EOS
        part_begins = start % self.context_bytes == 0
        if tight and not begins and part_begins and segments.stays_whole(segment):
            return None
        eos = end == last and segments.ends(segment) and end - start + 2 <= room
        stream.at.given += end - start
        stream.at.offset = end
        if end == last:
            stream.next_segment()
        return _Chunk(segments, segment, start, end, eos)

    def _next_stream(self) -> _Stream:
        """One that is within a segment, or else the one that lags most behind its share."""
        for stream in self._streams:
            if stream.at.offset:
                return stream
        return min(self._streams, key=lambda stream: stream.at.given / stream.weight)

    def _build(self, chunks: Sequence[_Chunk], state: dict[str, Any]) -> Batch:
        documents, targets, entropies = [], [], []
        for segments, segment, start, end, eos in chunks:
            piece = segments.read(segment, start, end)
            ids = put_in(vocab.encode(piece.data, eos=eos), piece.specials)
            following = vocab.PAD if eos else piece.following
            documents.append(ids)
            wanted = torch.cat((ids[1:], ids.new_tensor([following])))
            if piece.asked is not None:
                wanted[: len(piece.data)][torch.from_numpy(~piece.asked)] = vocab.PAD
            targets.append(wanted)
            entropies.append(_known(piece.entropies, eos))
        some_known = None if all(known is None for known in entropies) else entropies
        return Batch(documents, torch.cat(targets), some_known, state)


def _known(entropies: np.ndarray | None, eos: bool) -> torch.Tensor | None:
    """Stored entropies of a document, one for each id."""
    if entropies is None:
        return None
    known = torch.from_numpy(entropies.copy())
    # EOS ends the text: what comes after is never asked.
    return torch.cat((known, known.new_zeros(1))) if eos else known


def loader_of(documents: Sequence[bytes], cut: Collection[int] = (), **options: Any) -> Loader:
    """A loader over documents in memory, those of ``cut`` without an end.

    Other options are those of :class:`Loader`.
    """
    return Loader([MemorySegments(documents, options["context_bytes"], cut)], **options)
