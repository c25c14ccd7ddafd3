"""Text of which some segments are disturbed, others in every epoch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import cached_property, lru_cache

from blt import vocab
from blt.data.segments import Piece, Segments
from blt.texts.noises import NOISES, Noised, noised

KEPT = 512  # disturbed segments in memory: planned for a batch, read when it is laid out


def with_noise(text: Segments, share: float, noises: Sequence[str]) -> Segments:
    """``text`` with a share of its segments disturbed, each by one of ``noises``; 0: as it is."""
    return NoisedSegments(text, share, noises) if share else text


class NoisedSegments:
    """Segments, some of them disturbed: of other lengths, with the bytes marked that stayed.

    Which ones, by which noise and how, is decided by the epoch's numbers and the segment's index
    alone, so any number of processes sees the same, in any order. The others are read as they are.
    Of a disturbed segment, stored entropies are left out, since they are those of other text, and
    what comes after it is known only where the document ends. What a noise would leave nothing of
    stays as it is.

    Args:
        text: the segments as they are.
        share: of segments that are disturbed, above 0 and at most 1.
        noises: names of :data:`blt.texts.noises.NOISES`; each equally often.
        key: of the epoch.
    """

    def __init__(
        self, text: Segments, share: float, noises: Sequence[str], key: tuple[int, ...] = ()
    ) -> None:
        self.text, self.share, self.noises, self.key = text, share, tuple(noises), key
        self._disturbed = lru_cache(KEPT)(self._disturb)

    @property
    def num_bytes(self) -> int:
        """Bytes of all documents together as they are."""
        return self.text.num_bytes

    @cached_property
    def fingerprint(self) -> str:
        parts = f"{self.text.fingerprint} {self.share} {' '.join(self.noises)}"
        return hashlib.sha256(parts.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.text)

    def in_epoch(self, *key: int) -> NoisedSegments:
        return NoisedSegments(self.text, self.share, self.noises, key)

    def length(self, index: int) -> int:
        found = self._disturbed_one(index)
        return self.text.length(index) if found is None else len(found.data)

    def ends(self, index: int) -> bool:
        return self.text.ends(index)

    def read(self, index: int, start: int, end: int) -> Piece:
        found = self._disturbed_one(index)
        if found is None:
            return self.text.read(index, start, end)
        following = vocab.PAD
        if end == len(found.data):  # where the text goes on, the noise would have gone on too
            following = vocab.EOS if self.text.ends(index) else vocab.PAD
        elif found.clean[end]:
            following = found.data[end] + vocab.OFFSET
        return Piece(found.data[start:end], following, clean=found.clean[start:end])

    def _disturbed_one(self, index: int) -> Noised | None:
        """None: this segment stays as it is."""
        digest = hashlib.sha256(f"noise {self.key} {index}".encode()).digest()
        drawn = int.from_bytes(digest[:8])
        return self._disturbed(index, digest[8:]) if drawn < self.share * 2**64 else None

    def _disturb(self, index: int, numbers: bytes) -> Noised | None:
        name = self.noises[int.from_bytes(numbers[:8]) % len(self.noises)]
        clean = self.text.read(index, 0, self.text.length(index)).data
        found = noised(clean, NOISES[name], random.Random(int.from_bytes(numbers[8:])))
        return found if found.data else None
