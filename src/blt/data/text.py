"""What a recipe trains on and is evaluated on: plain sources in memory, prepared ones on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from blt.data.heldout import split, split_remarks
from blt.data.segments import MemorySegments, Segments
from blt.data.shards import HELDOUT, ShardSegments, is_prepared
from blt.data.sources import read, warn_once
from blt.errors import UserError


@dataclass(frozen=True)
class Source:
    """One source of a recipe."""

    name: str
    train: Segments
    heldout: list[bytes]  # documents, or a sample of them
    facts: dict[str, Any]  # counts, for the metrics

    def sample(self, max_bytes: int) -> list[bytes]:
        """Text to train on: all documents, or of shards about so many bytes from everywhere."""
        if isinstance(self.train, ShardSegments):
            return self.train.sample(max_bytes)
        assert isinstance(self.train, MemorySegments)
        return list(self.train.documents)


def open_sources(
    names: Sequence[str],
    *,
    heldout: float,
    max_bytes: int | None,
    context_bytes: int,
    heldout_bytes: int,
) -> list[Source]:
    """Open the sources of a recipe: prepared folders one by one, all other text together.

    Args:
        heldout: share that is held out of plain text; prepared text was divided before.
        max_bytes: of plain text in all.
        context_bytes: of the longest segment.
        heldout_bytes: how much held-out text of a prepared folder to read.

    Raises:
        UserError: missing, unreadable or damaged sources; names the file and the way out.
    """
    plain = [name for name in names if not is_prepared(name)]
    prepared = [name for name in names if is_prepared(name)]
    for name, path in zip(prepared, map(os.path.realpath, prepared), strict=True):
        if sum(path == os.path.realpath(other) for other in prepared) > 1:
            raise UserError(f"{name}: is named twice; to have more of it, give it a weight")
    found = [_prepared(name, heldout_bytes) for name in prepared]
    if plain:
        found.insert(0, _plain(plain, heldout, max_bytes, context_bytes))
    return found


def weighted_sources(names: Sequence[str], **options: Any) -> list[Source]:
    """The same, each source on its own, so that each can have a share of its own."""
    found = [source for name in names for source in open_sources([name], **options)]
    _warn_of_shared_text(found)
    return found


def _warn_of_shared_text(sources: Sequence[Source]) -> None:
    """Say what one source holds out and another one trains on."""
    held = {document: source.name for source in sources for document in source.heldout}
    for source in sources:
        if isinstance(source.train, MemorySegments):
            shared = [held[document] for document in source.train.documents if document in held]
            if shared:
                warn_once(
                    f"{source.name}: trains on {len(shared):,} of the documents that "
                    f"{shared[0]} holds out; name each text in one source"
                )


def _plain(
    names: Sequence[str], heldout: float, max_bytes: int | None, context_bytes: int
) -> Source:
    corpus = read(names, max_bytes)
    parts = split(corpus.documents, heldout, corpus.endless)
    facts = {
        "train_documents": len(parts.train),
        "train_bytes": sum(map(len, parts.train)),
        "heldout_documents": len(parts.heldout),
        "heldout_bytes": sum(map(len, parts.heldout)),
        "cut_documents": parts.divided,
        "broken_lines": corpus.broken.count,
        "broken": corpus.broken.named[:10],
        "left_out": corpus.broken.left_out.facts(),
        "read_as_one_text": corpus.broken.as_text.facts(),
    }
    for remark in parts.remarks(" ".join(names)):
        warn_once(remark)
    train = MemorySegments(parts.train, context_bytes, parts.cut)
    return Source(" ".join(names), train, parts.heldout, facts)


def _prepared(name: str, heldout_bytes: int) -> Source:
    train, heldout = ShardSegments(name), ShardSegments(name, HELDOUT)
    if not len(train):
        raise UserError(f"{name}: all of it is held out; prepare more text, or hold out less")
    facts = {
        "train_segments": len(train),
        "train_bytes": train.num_bytes,
        "heldout_segments": len(heldout),
        "heldout_bytes": heldout.num_bytes,
        "broken_lines": train.manifest["broken"],
        "left_out": train.manifest.get("left_out", {}),  # earlier manifests have none
        "cut_documents": train.manifest.get("cut_documents", 0),
        "checked": train.checked,  # against the checksums, as shards are read
    }
    for remark in split_remarks(name, facts["cut_documents"], heldout.num_bytes):
        warn_once(remark)
    return Source(name, train, heldout.sample(heldout_bytes), facts)


def heldout_by_source(sources: Sequence[Source]) -> dict[str, list[bytes]]:
    """Held-out documents under each source's name, where there are any."""
    return dict(_named(sources))


def _named(sources: Sequence[Source]) -> Iterator[tuple[str, list[bytes]]]:
    for source in sources:
        if source.heldout:
            yield source.name, source.heldout
