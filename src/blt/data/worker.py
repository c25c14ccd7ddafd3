"""The shards of one source file at a time."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from blt.chat import ChatTemplate
from blt.checkpoint.pretrained import find_entropy_model, identity
from blt.data.census import Census, by_hash, from_json
from blt.data.form import AnySource, Form, Learn, converses, source_of
from blt.data.heldout import content_hash
from blt.data.left_out import MAX_BROKEN_LINES, Broken
from blt.data.manifest import UNITS
from blt.data.segments import MemorySegments, Piece
from blt.data.shards import HELDOUT, TRAIN, ShardInfo, ShardWriter
from blt.data.sources import Unit
from blt.errors import UserError, require_list
from blt.files import durable
from blt.machine.precision import autocast, choose_device, choose_dtype
from blt.model.compiling import compile_model, wants_compiling
from blt.model.transformer import CausalTransformer
from blt.texts.marked import Marked, encode
from blt.texts.pieces import streamed

UNIT = "unit.json"  # written last into a unit's folder
TOLD = 2**20  # bytes between two signs of life
GROUP_BYTES = 65536  # of documents whose entropies are computed together
GPU_GROUP_BYTES = 2**20  # so many fill a GPU


@dataclass(frozen=True)
class Options:
    """What the shards depend on, beside the text.

    Attributes:
        sources: files, folders, globs, ``hf:NAME``, ``builtin:python``, or tables.
        heldout: share of documents that is kept from training.
        entropy_model: "pretrained" or a model's folder, whose entropies are stored; None: none.
        newline_reset: the entropy model forgets everything after each newline.
        precision: of the entropy model's matrix products.
        segment_bytes: of the longest segment, and so of the longest context to train with.
        shard_bytes: of text in a shard, about.
        max_broken: lines without a document that are left out of one file before it is an error.
        learn: of conversations and completions; None: "completions". It matters to these alone.
        template: text of the chat template that lays out conversations; None: the default one.
    """

    sources: tuple[AnySource, ...]
    heldout: float = 0.01
    entropy_model: str | None = None
    newline_reset: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    segment_bytes: int = 8192
    shard_bytes: int = 2**26
    max_broken: int = MAX_BROKEN_LINES
    learn: Learn | None = None
    template: str | None = None

    def __post_init__(self) -> None:
        require_list("sources", self.sources)
        if not self.sources:
            raise UserError("no text to prepare: name at least one file, folder or glob")
        if self.template is not None and not converses(self.sources):
            raise UserError(
                "template: none of the sources is of conversations; name their key, as in "
                """'{path = "chat.jsonl", messages = "messages"}'"""
            )
        if self.newline_reset and self.entropy_model is None:
            raise UserError(
                "newline_reset: there is no model that would forget; name entropy_model"
            )
        if not 0 <= self.heldout < 1:
            raise UserError(f"heldout must be at least 0 and below 1, got {self.heldout}")
        for name in ("segment_bytes", "shard_bytes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Task:
    """One unit of the work."""

    number: int
    source: str
    unit: str
    named: bool
    division: str = ""  # of held-out text, where hashes alone do not do; JSON
    table: str = ""  # of a source that is one; JSON

    def unit_as(self, learn: Learn | None, template: ChatTemplate | None = None) -> Unit:
        """What is to be read."""
        given = source_of(json.loads(self.table), self.source) if self.table else self.source
        return Unit(self.unit, self.named, Form(given, learn or "completions", template))


@dataclass
class Outcome:
    """What became of a unit."""

    source: str
    unit: str
    documents: int = 0
    bytes: int = 0
    broken: int = 0
    broken_lines: list[str] = field(default_factory=list)  # up to a thousand of them
    left_out: dict[str, Any] = field(default_factory=dict)  # files, by kind
    as_text: dict[str, Any] = field(default_factory=dict)  # files read as one text, by kind
    cut: int = 0  # documents whose end is held out
    marked: bool = False  # is some of it read only?
    nothing_to_learn: int = 0  # segments that were left out
    census: dict[str, Any] = field(default_factory=dict)
    division: str = ""
    stamp: list[int] = field(default_factory=list)  # of the file that was read; none: not known
    shards: list[dict[str, Any]] = field(default_factory=list)


def nobody(*_: object) -> None:
    """Shows nothing."""


class Worker:
    """Writes the shards of one unit after another.

    Args:
        out: folder of all shards.
        device: where the entropy model works.

    Attributes:
        tell: called with the outcome so far of the unit in work, after every megabyte of text.
    """

    tell: Callable[[Outcome], None] = staticmethod(nobody)

    def __init__(self, out: Path, options: Options, device: str = "cpu") -> None:
        self.out, self.options = out, options
        self.template = template_of(options)
        self.entropy_model = find_entropy_model(options.entropy_model)
        self.identity = None if self.entropy_model is None else identity(self.entropy_model)
        if self.entropy_model is not None:
            place = choose_device(device, "device")
            self.entropy_model.to(place)
            if wants_compiling("auto", place):
                compile_model(self.entropy_model)

    def __call__(self, task: Task) -> Outcome:
        place = place_of(self.out, task.number)
        stamp = stamp_of(task.unit)
        outcome = Outcome(task.source, task.unit, division=task.division, stamp=stamp)
        place.parent.mkdir(exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as beside:
                new = Path(beside) / "new"
                new.mkdir()
                outcome.shards = [
                    asdict(shard) | {"file": f"{place.relative_to(self.out)}/{shard.file}"}
                    for shard in self._write(new, task, outcome)
                ]
                (new / UNIT).write_text(json.dumps(asdict(outcome)))
                if place.exists():  # divided otherwise, or of a file that has changed since
                    os.replace(place, Path(beside) / "old")
                durable.replace(new, place)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"{self.out}: the disk is full; free some space and run the same command again: it "
                "goes on where it was"
            ) from None
        return outcome

    def _write(self, folder: Path, task: Task, outcome: Outcome) -> Iterator[ShardInfo]:
        options, broken, census = self.options, Broken(self.options.max_broken), Census()
        division = from_json(task.division)
        writers = {TRAIN: ShardWriter(), HELDOUT: ShardWriter()}
        counts = dict.fromkeys(writers, 0)

        def flush(split: str) -> ShardInfo:
            writer, writers[split] = writers[split], ShardWriter()
            counts[split] += 1
            return writer.write(folder / f"{split}-{counts[split]:05d}.arrow", split)

        documents = task.unit_as(options.learn, self.template).documents(broken)
        for document, entropies in self._with_entropies(self._counted(documents, outcome)):
            value = content_hash(document) if options.heldout else 1.0
            census.add(document, value, options.heldout)
            at = (division.at if division else by_hash)(document, value, options.heldout)
            outcome.cut += 0 < at < len(document)
            outcome.marked |= isinstance(document, Marked)
            for split, piece in _pieces(document, entropies, at, options.segment_bytes, outcome):
                writers[split].add(piece)
                if writers[split].bytes >= options.shard_bytes:
                    yield flush(split)
        yield from (flush(split) for split in (TRAIN, HELDOUT) if writers[split].bytes)
        outcome.broken, outcome.broken_lines = broken.count, broken.named
        outcome.left_out, outcome.as_text = broken.left_out.facts(), broken.as_text.facts()
        outcome.census = asdict(census)

    def _counted(self, documents: Iterator[bytes], outcome: Outcome) -> Iterator[bytes]:
        for document in documents:
            before = outcome.bytes
            outcome.documents += 1
            outcome.bytes += len(document)
            if outcome.bytes // TOLD > before // TOLD:
                self.tell(outcome)
            yield document

    def _with_entropies(
        self, documents: Iterator[bytes]
    ) -> Iterator[tuple[bytes, torch.Tensor | None]]:
        """Documents with nats [bytes + 1] each, a group at a time."""
        if self.entropy_model is None:
            yield from ((document, None) for document in documents)
            return
        on_cpu = self.entropy_model.device.type == "cpu"
        for group in streamed(documents, GROUP_BYTES if on_cpu else GPU_GROUP_BYTES):
            yield from zip(group, self._entropies(self.entropy_model, group), strict=True)

    def _entropies(self, model: CausalTransformer, group: Sequence[bytes]) -> list[torch.Tensor]:
        ids = [encode(document) for document in group]
        with autocast(model.device, choose_dtype(self.options.precision, model.device)):
            found = model.document_entropies(ids, self.options.newline_reset)
        return [entropies.float() for entropies in found]


def _pieces(
    document: bytes,
    entropies: torch.Tensor | None,
    at: int,
    segment_bytes: int,
    outcome: Outcome,
) -> Iterator[tuple[str, Piece]]:
    """Segments of a document, of which what follows ``at`` is held out."""
    before = 0
    for split, part in ((TRAIN, document[:at]), (HELDOUT, document[at:])):
        if not part:
            continue
        cut = (0,) if before + len(part) < len(document) else ()
        segments = MemorySegments([part], segment_bytes, cut)
        outcome.nothing_to_learn += segments.left_out
        for index in range(len(segments)):
            piece = segments.read(index, 0, segments.length(index))
            first = before + segments.start(index)
            end = first + len(piece.data)
            known = None if entropies is None else entropies[first : end + 1].numpy()
            yield split, replace(piece, entropies=known)
        before += len(part)


def template_of(options: Options) -> ChatTemplate | None:
    """How conversations are laid out; None: there are none.

    Raises:
        UserError: no template.
    """
    if not converses(options.sources):
        return None
    given = options.template
    return ChatTemplate.default() if given is None else ChatTemplate(given, "the chat template")


def place_of(out: Path, number: int) -> Path:
    return out / UNITS / f"{number:05d}"


def stamp_of(unit: str) -> list[int]:
    """Size and time of a source file, of which one at least changes with it; else nothing."""
    path = Path(unit)
    about = path.stat() if path.is_file() else None
    return [] if about is None else [about.st_size, about.st_mtime_ns]
