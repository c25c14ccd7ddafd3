"""The kinds of text that a study scores its models on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from blt.data import read
from blt.data.shards import is_prepared
from blt.errors import UserError, named
from blt.evals.overlap import overlap
from blt.study.config import Study
from blt.texts.pieces import choose, drawn

log = logging.getLogger("blt")


@dataclass(frozen=True)
class Heldout:
    """Kinds of text to score."""

    kinds: dict[str, list[bytes]]

    @classmethod
    def read(cls, study: Study) -> Heldout:
        kinds = study.heldout.items()
        return cls({n: _plain(names, f"{study.where}: heldout.{n}") for n, names in kinds})

    def all(self, max_bytes: int, context_bytes: int = 2048) -> list[bytes]:
        """Pieces of held-out text of all kinds, as many bytes of each as are scored."""
        kinds = self.kinds.values()
        return [piece for texts in kinds for piece in choose(texts, max_bytes, context_bytes)]

    def scored(self, max_bytes: int) -> dict[str, dict[str, int]]:
        """Documents and bytes of each kind that are scored, and how many there are."""
        return {kind: _scored(texts, drawn(texts, max_bytes)) for kind, texts in self.kinds.items()}


def _scored(texts: Sequence[bytes], chosen: Sequence[Sequence[bytes]]) -> dict[str, int]:
    return {
        "documents": len(chosen),
        "of_documents": len(texts),
        "bytes": sum(len(piece) for pieces in chosen for piece in pieces),
        "of_bytes": sum(map(len, texts)),
    }


def _plain(sources: Sequence[str], key: str) -> list[bytes]:
    """Documents of sources that are not prepared."""
    with named(key):
        for name in sources:
            if is_prepared(name):
                raise UserError(f"{name}: is a prepared folder; name the text that it was made of")
        return read(sources).documents


def check_overlap(study: Study, heldout: Heldout) -> dict[str, float]:
    """Share of each kind's 50-byte blocks that occur in the training text."""
    names: Sequence[str] = study.base.get("data", {}).get("sources", ())
    if not names:
        raise UserError(f"{study.where}: base.data.sources names no text")
    train = _plain(names, f"{study.where}: base.data.sources")
    return {kind: overlap(train, documents) for kind, documents in heldout.kinds.items()}


def warn_of_unscored(study: Study, scored: dict[str, dict[str, int]]) -> None:
    """A kind of text may have more documents than can be scored."""
    for kind, count in scored.items():
        if count["documents"] < count["of_documents"]:
            log.warning(
                "%s: heldout.%s: %d of %d documents are scored, %d of %d bytes; a larger "
                "heldout_bytes scores more",
                *(study.where, kind, count["documents"], count["of_documents"]),
                *(count["bytes"], count["of_bytes"]),
            )
