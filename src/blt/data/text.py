"""What a recipe trains on and is evaluated on: plain sources in memory, prepared ones on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blt.chat import ChatTemplate
from blt.data.form import AnySource, Learn, SourceConfig, path_of
from blt.data.heldout import Split, split, split_remarks
from blt.data.left_out import MAX_BROKEN_LINES
from blt.data.manifest import read_manifest
from blt.data.segments import MemorySegments, Segments
from blt.data.shards import HELDOUT, ShardSegments, is_prepared
from blt.data.sources import read, warn_once
from blt.errors import UserError, require
from blt.texts.marked import Marked, num_learned


@dataclass(frozen=True)
class Source:
    """One source of a recipe."""

    name: str
    train: Segments
    heldout: list[bytes]  # documents, or a sample of them
    facts: dict[str, Any]  # counts, for the metrics

    @property
    def learned_whole(self) -> bool:
        """Is all of its text bytes, and each of them learned?"""
        if isinstance(self.train, ShardSegments):
            return self.train.learn is None
        assert isinstance(self.train, MemorySegments)
        documents = (*self.train.documents, *self.heldout)
        return not any(isinstance(document, Marked) for document in documents)

    def sample(self, max_bytes: int) -> list[bytes]:
        """Text to train on: all documents, or of shards about so many bytes from everywhere."""
        if isinstance(self.train, ShardSegments):
            return self.train.sample(max_bytes)
        assert isinstance(self.train, MemorySegments)
        return list(self.train.documents)


@dataclass(frozen=True)
class Reading:
    """How plain sources are read: as of :func:`blt.data.sources.read`."""

    learn: Learn = "completions"
    max_broken: int = MAX_BROKEN_LINES
    template: ChatTemplate | None = None


def open_sources(
    sources: Sequence[AnySource],
    *,
    heldout: float,
    max_bytes: int | None,
    context_bytes: int,
    heldout_bytes: int,
    reading: Reading = Reading(),
) -> list[Source]:
    """Open the sources of a recipe: prepared folders one by one, all other text together.

    Args:
        heldout: share that is held out of plain text; prepared text was divided before.
        max_bytes: of plain text in all; prepared text is read whole, which is said.
        context_bytes: of the longest segment.
        heldout_bytes: how much held-out text of a prepared folder to read.
        reading: what is learned, and how much may be broken.

    Raises:
        UserError: missing, unreadable or damaged sources; names the file and the way out.
    """
    _warn_of_limit(sources, max_bytes)
    plain = [source for source in sources if not is_prepared(path_of(source))]
    prepared = [source for source in sources if is_prepared(path_of(source))]
    names = [path_of(source) for source in prepared]
    for name, path in zip(names, map(os.path.realpath, names), strict=True):
        if sum(path == os.path.realpath(other) for other in names) > 1:
            raise UserError(f"{name}: is named twice; to have more of it, give it a weight")
    found = [_prepared(source, heldout_bytes, reading.learn) for source in prepared]
    if plain:
        found.insert(0, _plain(plain, heldout, max_bytes, context_bytes, reading))
    _warn_of_shared_text(found)
    return found


def template_of_shards(sources: Sequence[AnySource]) -> ChatTemplate | None:
    """How conversations in prepared folders were laid out; None: there are none.

    Raises:
        UserError: in different ways, of which a model can have one; names two folders.
    """
    found: dict[str, str] = {}  # a folder by its template
    for name in map(path_of, sources):
        if is_prepared(name):
            template = read_manifest(Path(name)).get("chat_template")  # earlier ones have none
            if template is not None:
                found.setdefault(template, name)
    if len(found) > 1:
        first, other, *_ = found.values()
        raise UserError(
            f"{first} and {other}: were prepared with different chat templates, and a model has "
            "one; prepare one of them again, with --template"
        )
    return next((ChatTemplate(text, f"{n}: chat template") for text, n in found.items()), None)


def weighted_sources(
    sources: Sequence[AnySource], *, max_bytes: int | None, **options: Any
) -> list[Source]:
    """The same, each source on its own, so that each can have a share of its own.

    A name that comes again, such as of two keys of one file, gets a number.
    """
    _warn_of_limit(sources, max_bytes)
    plain = sum(not is_prepared(path_of(source)) for source in sources)
    share = None if max_bytes is None else max(1, max_bytes // max(1, plain))
    found: list[Source] = []
    for source in sources:
        limit = None if is_prepared(path_of(source)) else share
        (opened,) = open_sources([source], max_bytes=limit, **options)
        same = sum(path_of(source) == path_of(other) for other in sources[: len(found)])
        name = f"{opened.name} ({same + 1})" if same else opened.name
        found.append(replace(opened, name=name))
    _warn_of_shared_text(found)
    return found


def _warn_of_limit(sources: Sequence[AnySource], max_bytes: int | None) -> None:
    """Say which sources are read whole, whatever the limit."""
    prepared = [path_of(source) for source in sources if is_prepared(path_of(source))]
    if max_bytes is not None and prepared:
        warn_once(f"data.max_bytes: {', '.join(prepared)}: prepared text is read whole")


def _warn_of_shared_text(sources: Sequence[Source]) -> None:
    """Say what one source holds out and one of plain text trains on."""
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
    sources: Sequence[AnySource],
    heldout: float,
    max_bytes: int | None,
    context_bytes: int,
    reading: Reading,
) -> Source:
    corpus = read(sources, max_bytes, **vars(reading))
    name = " ".join(map(path_of, sources))
    parts = split(corpus.documents, heldout, corpus.endless)
    train = MemorySegments(parts.train, context_bytes, parts.cut)
    facts = {
        "train_documents": len(parts.train),
        "train_bytes": sum(map(len, parts.train)),
        "heldout_documents": len(parts.heldout),
        "heldout_bytes": sum(map(len, parts.heldout)),
        "cut_documents": parts.divided,
        "broken_lines": corpus.broken.count,
        "broken": corpus.broken.named,
        "left_out": corpus.broken.left_out.facts(),
        "read_as_one_text": corpus.broken.as_text.facts(),
    }
    for remark in parts.remarks(name):
        warn_once(remark)
    if any(isinstance(document, Marked) for document in corpus.documents):
        facts |= _learned(name, parts, train)
    return Source(name, train, parts.heldout, facts)


def _learned(name: str, parts: Split, train: MemorySegments) -> dict[str, int]:
    """How much of the text is learned, and evaluated; said in a line too.

    Raises:
        UserError: nothing.
    """
    learned, heldout = (sum(map(num_learned, text)) for text in (parts.train, parts.heldout))
    if not len(train):
        raise UserError(
            f"{name}: nothing in it is learned: no answer of an assistant, no completion; learn "
            'all of it with data.learn = "all"'
        )
    size, without = sum(map(len, parts.train)), train.left_out
    warn_once(
        f"{name}: of {size:,} bytes to train on, {learned:,} are learned, others read; held-out "
        f"bits per byte are of such bytes too ({heldout:,})"
        + f"; left out: {without:,} segments with nothing to learn"
        * (without > 0)
    )
    return {
        "learned_bytes": learned,
        "heldout_learned_bytes": heldout,
        "segments_with_nothing_to_learn": without,
    }


def _prepared(source: AnySource, heldout_bytes: int, learn: Learn) -> Source:
    name = path_of(source)
    keys = isinstance(source, SourceConfig) and source.names_keys
    require(not keys, f"{name}: is prepared already; name its keys to blt prepare, not here")
    train, heldout = ShardSegments(name), ShardSegments(name, HELDOUT)
    if not len(train):
        raise UserError(f"{name}: all of it is held out; prepare more text, or hold out less")
    if train.learn not in (None, learn):
        raise UserError(
            f"{name}: was prepared to learn {train.learn!r}, and data.learn is {learn!r}; prepare "
            f"it again with --learn {learn}, or change data.learn"
        )
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
    if train.learn == "completions":
        warn_once(
            f"{name}: what is not an answer is read only; held-out bits per byte are of answers too"
        )
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
