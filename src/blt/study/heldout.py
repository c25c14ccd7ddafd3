"""The kinds of text that a study scores its models on, and how much of each."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blt.data import read
from blt.data.form import AnySource, path_of, source_of
from blt.data.shards import is_prepared
from blt.errors import UserError, named
from blt.evals.overlap import overlaps
from blt.study.config import Study
from blt.texts.pieces import choose

log = logging.getLogger("blt")
MUCH = 0.01  # of a kind's blocks also in the training text: worth a warning


@dataclass(frozen=True)
class Heldout:
    """Pieces of each text of each kind: ``pieces[kind][text]``."""

    pieces: dict[str, dict[str, list[bytes]]]
    facts: dict[str, dict[str, dict[str, Any]]]  # how much of each text is scored

    @classmethod
    def read(cls, study: Study) -> Heldout:
        """Read and cut what a study scores.

        Raises:
            UserError: text that is missing, or a prepared folder; names the key.
        """
        context = int(study.base.get("data", {}).get("context_bytes", 2048))
        found = cls({}, {})
        for kind, texts in study.heldout.items():
            found.pieces[kind], found.facts[kind] = {}, {}
            for name, sources in texts.items():
                documents = _plain(sources, f"{study.where}: heldout.{kind}.{name}")
                pieces = choose(documents, study.heldout_bytes.get(kind), context)
                found.pieces[kind][name] = pieces
                found.facts[kind][name] = _facts(documents, pieces)
        return found

    @property
    def all(self) -> list[bytes]:
        """The pieces of all texts."""
        texts = [pieces for of in self.pieces.values() for pieces in of.values()]
        return [piece for pieces in texts for piece in pieces]

    def overlap(self, study: Study) -> dict[str, dict[str, float]]:
        """Share of each text's 50-byte blocks that occur in the training text."""
        key = f"{study.where}: base.data.sources"
        names = [source_of(name, key) for name in study.base.get("data", {}).get("sources", ())]
        if not names:
            raise UserError(f"{study.where}: base.data.sources names no text")
        train = _plain(names, key)
        every = [pieces for texts in self.pieces.values() for pieces in texts.values()]
        shares = iter(overlaps(train, every))
        return {kind: {name: next(shares) for name in of} for kind, of in self.pieces.items()}


def _facts(documents: Sequence[bytes], pieces: Sequence[bytes]) -> dict[str, Any]:
    return {
        "documents": len(documents),
        "of_bytes": sum(map(len, documents)),
        "bytes": sum(map(len, pieces)),
        "pieces": [len(piece) for piece in pieces],  # bytes of each, in the order of their scores
        "sha256": hashlib.sha256(b"\0".join(pieces)).hexdigest(),
    }


def warn_of_overlap(study: Study, shares: dict[str, dict[str, float]]) -> None:
    """Name text that is also trained on."""
    for kind, texts in shares.items():
        for name, share in texts.items():
            if share > MUCH:
                log.warning(
                    "%s: heldout.%s.%s: %.1f %% of its blocks of 50 bytes are in the training text",
                    *(study.where, kind, name, 100 * share),
                )


def _plain(sources: Sequence[AnySource], key: str) -> list[bytes]:
    """Documents of sources that are not prepared."""
    with named(key):
        for name in map(path_of, sources):
            if is_prepared(name):
                raise UserError(f"{name}: is a prepared folder; name the text that it was made of")
        return read(sources).documents
