"""Text of which some segments are disturbed, others in every epoch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np

from blt import vocab
from blt.data.segments import Piece, Segments
from blt.texts.marked import Marked, runs, spans_of
from blt.texts.noises import NOISES, Disturb, noised

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

    def stays_whole(self, index: int) -> bool:
        return self.text.stays_whole(index)

    def read(self, index: int, start: int, end: int) -> Piece:
        found = self._disturbed_one(index)
        return self.text.read(index, start, end) if found is None else found.part(start, end)

    def _disturbed_one(self, index: int) -> Piece | None:
        """None: this segment stays as it is."""
        digest = hashlib.sha256(f"noise {self.key} {index}".encode()).digest()
        drawn = int.from_bytes(digest[:8])
        return self._disturbed(index, digest[8:]) if drawn < self.share * 2**64 else None

    def _disturb(self, index: int, numbers: bytes) -> Piece | None:
        noise = NOISES[self.noises[int.from_bytes(numbers[:8]) % len(self.noises)]]
        chance = random.Random(int.from_bytes(numbers[8:]))
        text = self.text.read(index, 0, self.text.length(index))
        found = [_disturbed(part, noise, chance) for part in _runs(text)]
        data = b"".join(part.data for part in found)
        if not data:
            return None
        at, specials = 0, list[tuple[int, int]]()
        for part in found:
            specials += [(at + place, special) for place, special in part.specials]
            at += len(part.data)
        # Where the text goes on, the noise would have gone on too.
        following = vocab.EOS if self.text.ends(index) else vocab.PAD
        asked = np.concatenate([part.asked for part in found if part.asked is not None])
        return Piece(data, following, None, asked, tuple(specials))


def _runs(text: Piece) -> list[Piece]:
    """Parts of which each is learned or not, so that a noise mixes nothing; special ids alone."""
    asked = spans_of(text.asked) if text.asked is not None else [(0, len(text.data))]
    whole = Marked(text.data, asked, text.specials)
    return [replace(text, entropies=None).part(start, end) for start, end in runs(whole)]


def _disturbed(text: Piece, noise: Disturb, chance: random.Random) -> Piece:
    """What a noise makes of a part; of what is not learned, nothing is asked for."""
    if text.specials:
        return replace(text, asked=np.ones(1, dtype=bool) if text.asked is None else text.asked)
    found = noised(text.data, noise, chance)
    learned = text.asked is None or bool(text.asked.all())
    return Piece(found.data, text.following, None, found.clean & learned)
