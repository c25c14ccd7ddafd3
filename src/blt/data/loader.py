"""A seeded, endless stream of packed training batches that can be left and taken up exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from blt import vocab


@dataclass(frozen=True)
class Batch:
    """Documents to lay end to end, N ids together, and what to predict after each."""

    documents: list[Tensor]  # ids, each [T] int64, BOS first
    targets: Tensor  # [N] int64; PAD where there is nothing to predict (after EOS)

    @property
    def num_bytes(self) -> int:
        """Bytes of text, without special ids."""
        return sum(int((ids >= vocab.OFFSET).sum()) for ids in self.documents)

    def to(self, device: torch.device) -> Batch:
        return Batch([ids.to(device) for ids in self.documents], self.targets.to(device))


@dataclass
class Position:
    """Where the next batch begins."""

    seed: int
    epoch: int = 0
    index: int = 0  # into this epoch's order of segments
    offset: int = 0  # bytes of that segment that were already given


class Loader(Iterator[Batch]):
    """Endless batches of exactly ``batch_bytes`` ids; every byte once per epoch.

    Documents are cut into segments, which are documents of their own for the model, and the
    segments are shuffled anew in each epoch, so that a batch mixes sources even where documents are
    whole books. The last segment of a batch is cut where the batch is full, and the next batch goes
    on there, after a BOS.

    Args:
        documents: none empty.
        batch_bytes: ids per batch, special ones included.
        context_bytes: bytes of the longest segment.
        seed: of the order.
    """

    def __init__(
        self, documents: Sequence[bytes], *, batch_bytes: int, context_bytes: int, seed: int = 0
    ) -> None:
        if not documents or not all(documents):
            raise ValueError("a loader needs documents, and none of them empty")
        if batch_bytes < 2 or context_bytes < 1:
            raise ValueError("batch_bytes must be at least 2 and context_bytes at least 1")
        self.documents = documents
        self.batch_bytes, self.context_bytes = batch_bytes, context_bytes
        self._segments = [  # (document, first byte)
            (index, start)
            for index, document in enumerate(documents)
            for start in range(0, len(document), context_bytes)
        ]
        self._at = Position(seed)
        self._order = self._shuffled()

    def __next__(self) -> Batch:
        documents: list[Tensor] = []
        targets: list[Tensor] = []
        room = self.batch_bytes
        while room:
            ids, following = self._segment(room)
            documents.append(ids)
            targets.append(torch.cat((ids[1:], ids.new_tensor([following]))))
            room -= len(ids)
        return Batch(documents, torch.cat(targets))

    def state(self) -> dict[str, int]:
        """Where the stream stands, for :meth:`restore`; fits in JSON."""
        return asdict(self._at)

    def restore(self, state: dict[str, int]) -> None:
        """Go on exactly where a loader over the same documents stood."""
        self._at = Position(**state)
        self._order = self._shuffled()

    @cached_property
    def fingerprint(self) -> str:
        """Of the documents and their order: a state belongs to these only."""
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(hashlib.sha256(document).digest())
        return digest.hexdigest()

    def _shuffled(self) -> np.ndarray:
        generator = np.random.default_rng((self._at.seed, self._at.epoch))
        return generator.permutation(len(self._segments))

    def _segment(self, room: int) -> tuple[Tensor, int]:
        """The next ids [T], T <= room, and the id that follows them (PAD after EOS)."""
        index, first = self._segments[self._order[self._at.index]]
        document = self.documents[index]
        start, last = first + self._at.offset, min(len(document), first + self.context_bytes)
        end = min(last, start + room - 1)
        if end < last:
            self._at.offset += end - start
        else:
            self._next_segment()
        if end < len(document):
            return vocab.encode(document[start:end]), document[end] + vocab.OFFSET
        if end - start + 2 > room:  # no room for EOS: it is still predicted
            return vocab.encode(document[start:end]), vocab.EOS
        return vocab.encode(document[start:end], eos=True), vocab.PAD

    def _next_segment(self) -> None:
        self._at.index, self._at.offset = self._at.index + 1, 0
        if self._at.index == len(self._segments):
            self._at.index, self._at.epoch = 0, self._at.epoch + 1
            self._order = self._shuffled()


def segments(documents: Sequence[bytes], context_bytes: int) -> list[bytes]:
    """Documents cut into pieces of at most ``context_bytes``, for scoring."""
    return [
        document[at : at + context_bytes]
        for document in documents
        for at in range(0, len(document), context_bytes)
    ]
