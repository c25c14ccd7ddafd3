"""From sources to shards: what ``blt prepare`` does, here or on a Ray cluster.

The work is cut into units, a source file each. A unit's shards are written into a folder beside its
place and moved there whole, so a kill loses the units in work and nothing else; run again, it goes
on. What a unit's shards hold depends on the unit and the options alone, not on who writes them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from blt import lm, vocab
from blt.config_io import to_dict
from blt.data.formats import MAX_BROKEN_LINES, Broken
from blt.data.heldout import content_hash, end_held_out
from blt.data.segments import MemorySegments, Piece
from blt.data.shards import (
    FORMAT,
    HELDOUT,
    MANIFEST,
    TRAIN,
    ShardInfo,
    ShardWriter,
    read_manifest,
    totals,
    write_lengths,
)
from blt.data.sources import Unit, units
from blt.errors import UserError
from blt.model.byte_transformer import ByteTransformer
from blt.precision import autocast, choose_dtype

PLAN = "plan.json"
LONG = 2**20  # bytes; of a document as long as this the end is held out, not all or nothing
TOLD = 2**20  # bytes between two signs of life
GROUP_BYTES = 65536  # of documents whose entropies are computed together


@dataclass(frozen=True)
class Options:
    """What the shards depend on, beside the text.

    Attributes:
        sources: files, folders, globs, ``hf:NAME``, ``builtin:python``.
        heldout: share of documents that is kept from training.
        entropy_model: "pretrained" or a model's folder, whose entropies are stored; None: none.
        newline_reset: the entropy model forgets everything after each newline.
        precision: of the entropy model's matrix products.
        segment_bytes: of the longest segment, and so of the longest context to train with.
        shard_bytes: of text in a shard, about.
        max_broken: lines without a document that are left out of one file before it is an error.
    """

    sources: tuple[str, ...]
    heldout: float = 0.01
    entropy_model: str | None = None
    newline_reset: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    segment_bytes: int = 8192
    shard_bytes: int = 2**26
    max_broken: int = MAX_BROKEN_LINES

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("no text to prepare: name at least one file, folder or glob")
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


@dataclass
class Outcome:
    """What became of a unit."""

    source: str
    unit: str
    documents: int = 0
    bytes: int = 0
    broken: int = 0
    broken_lines: list[str] = field(default_factory=list)  # the first of them
    left_out: dict[str, Any] = field(default_factory=dict)  # files, by kind
    as_text: dict[str, Any] = field(default_factory=dict)  # files read as one text, by kind
    shards: list[dict[str, Any]] = field(default_factory=list)


# Units done, of how many, and the last one, or what there is so far of the one in work.
OnProgress = Callable[[int, int, Outcome], None]


def prepare(
    folder: str | os.PathLike[str],
    options: Options,
    *,
    ray_workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Write the shards of ``options.sources`` into ``folder``, or what is missing of them.

    Args:
        folder: new, or one that an earlier call with the same options was writing.
        ray_workers: do the work on Ray with so many at once; None: here, one unit after another.
        on_progress: called after every unit, and here also within it, after every megabyte.

    Returns:
        the manifest.

    Raises:
        UserError: no documents, unreadable sources, a folder that holds something else, a full
            disk; what was whole stays, and another call goes on.
    """
    out, tasks = Path(folder), list(_tasks(options.sources))
    worker = Worker(out, options)  # before anything is written: it may not find its model
    _begin(out, options, worker.identity, tasks)
    missing = [task for task in tasks if not (_place(out, task.number) / "unit.json").is_file()]
    show, finished = on_progress or _nobody, len(tasks) - len(missing)
    if ray_workers:
        from blt.data.cluster import on_ray

        for done, outcome in enumerate(on_ray(worker, missing, ray_workers), finished + 1):
            show(done, len(tasks), outcome)
    else:
        for done, task in enumerate(missing, finished):
            worker.tell = partial(show, done, len(tasks))
            show(done + 1, len(tasks), worker(task))
    return _finish(out, options, worker.identity, tasks)


def _nobody(*_: object) -> None:
    """Shows nothing."""


class Worker:
    """Writes the shards of one unit after another.

    Attributes:
        tell: called with the outcome so far of the unit in work, after every megabyte of text.
    """

    tell: Callable[[Outcome], None] = staticmethod(_nobody)

    def __init__(self, out: Path, options: Options) -> None:
        from blt.pretrained import find_entropy_model, identity

        self.out, self.options = out, options
        self.entropy_model = find_entropy_model(options.entropy_model)
        self.identity = None if self.entropy_model is None else identity(self.entropy_model)

    def __call__(self, task: Task) -> Outcome:
        place, outcome = _place(self.out, task.number), Outcome(task.source, task.unit)
        place.parent.mkdir(exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as beside:
                new = Path(beside) / "new"
                new.mkdir()
                outcome.shards = [
                    asdict(shard) | {"file": f"{place.relative_to(self.out)}/{shard.file}"}
                    for shard in self._write(new, task, outcome)
                ]
                (new / "unit.json").write_text(json.dumps(asdict(outcome)))
                os.replace(new, place)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"{self.out}: the disk is full; free some space and run the same command again: it "
                "goes on where it was"
            ) from None
        return outcome

    def _write(self, folder: Path, task: Task, outcome: Outcome) -> Iterator[ShardInfo]:
        options, broken = self.options, Broken(self.options.max_broken)
        writers = {TRAIN: ShardWriter(), HELDOUT: ShardWriter()}
        counts = dict.fromkeys(writers, 0)

        def flush(split: str) -> ShardInfo:
            writer, writers[split] = writers[split], ShardWriter()
            counts[split] += 1
            return writer.write(folder / f"{split}-{counts[split]:05d}.arrow", split)

        documents = Unit(task.unit, task.named).documents(broken)
        for document, entropies in self._with_entropies(self._counted(documents, outcome)):
            for split, piece in _pieces(document, entropies, options):
                writers[split].add(piece)
                if writers[split].bytes >= options.shard_bytes:
                    yield flush(split)
        yield from (flush(split) for split in (TRAIN, HELDOUT) if writers[split].bytes)
        outcome.broken, outcome.broken_lines = broken.count, broken.named[:10]
        outcome.left_out, outcome.as_text = broken.left_out.facts(), broken.as_text.facts()

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
        group: list[bytes] = []
        for document in documents:
            group.append(document)
            if sum(map(len, group)) >= GROUP_BYTES:
                yield from zip(group, self._entropies(self.entropy_model, group), strict=True)
                group = []
        if group:
            yield from zip(group, self._entropies(self.entropy_model, group), strict=True)

    def _entropies(self, model: ByteTransformer, group: Sequence[bytes]) -> list[torch.Tensor]:
        device = next(model.parameters()).device
        ids = [vocab.encode(document).to(device) for document in group]
        with autocast(device, choose_dtype(self.options.precision, device)):
            found = lm.document_entropies(model, ids, self.options.newline_reset)
        return [entropies.float().cpu() for entropies in found]


def _pieces(
    document: bytes, entropies: torch.Tensor | None, options: Options
) -> Iterator[tuple[str, Piece]]:
    """Segments of a document, and on which side each is."""
    at = len(document)
    if len(document) >= LONG and options.heldout:
        at = end_held_out(document, options.heldout)
    elif content_hash(document) < options.heldout:
        at = 0
    first = 0
    for split, part in ((TRAIN, document[:at]), (HELDOUT, document[at:])):
        if not part:
            continue
        segments = MemorySegments([part], options.segment_bytes)
        for index in range(len(segments)):
            piece = segments.read(index, 0, segments.length(index))
            end = first + len(piece.data)
            known = None if entropies is None else entropies[first : end + 1].numpy()
            yield split, Piece(piece.data, piece.following, known)
            first = end


def _tasks(sources: Sequence[str]) -> Iterator[Task]:
    found = ((source, unit) for source in sources for unit in units(source))
    for number, (source, unit) in enumerate(found):
        yield Task(number, source, unit.name, unit.named)


def _place(out: Path, number: int) -> Path:
    return out / "units" / f"{number:05d}"


def _begin(out: Path, options: Options, identity: str | None, tasks: Sequence[Task]) -> None:
    """Make the folder, or check that it was being written by the same job."""
    plan = {
        "options": to_dict(options),
        "entropy_model": identity,
        "units": [[task.source, task.unit, _size(task.unit)] for task in tasks],
    }
    path = out / PLAN
    if path.is_file():
        if json.loads(path.read_text()) != json.loads(json.dumps(plan)):
            raise UserError(
                f"{path}: this folder is being written with other sources, options or entropy "
                "model; use those again, or choose another folder"
            )
        for left in (out / "units").glob(".*"):  # of a unit that was not finished
            shutil.rmtree(left, ignore_errors=True)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: holds something else; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    _write_whole(path, plan)


def _size(unit: str) -> int | None:
    """A source file that has changed since belongs to another plan."""
    path = Path(unit)
    return path.stat().st_size if path.is_file() else None


def _finish(
    out: Path, options: Options, identity: str | None, tasks: Sequence[Task]
) -> dict[str, Any]:
    places = [_place(out, task.number) for task in tasks]
    outcomes = [Outcome(**json.loads((place / "unit.json").read_text())) for place in places]
    shards = [shard for outcome in outcomes for shard in outcome.shards]
    if not shards:
        shutil.rmtree(out)  # it holds nothing
        raise UserError(
            f"{', '.join(options.sources)}: no text in there; name files that have some"
        )
    infos = [ShardInfo(**shard) for shard in shards]
    write_lengths(out, infos)
    model = {"name": options.entropy_model, "identity": identity}
    manifest = {
        "format": FORMAT,
        "options": to_dict(options),
        "entropy_model": model if identity else None,
        "documents": sum(outcome.documents for outcome in outcomes),
        "bytes": sum(outcome.bytes for outcome in outcomes),
        "broken": sum(outcome.broken for outcome in outcomes),
        "splits": totals(infos),
        "units": [{**asdict(outcome), "shards": len(outcome.shards)} for outcome in outcomes],
        "shards": shards,
    }
    _write_whole(out / MANIFEST, manifest)
    return read_manifest(out)


def _write_whole(path: Path, data: dict[str, Any]) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps(data, indent=1) + "\n")
    os.replace(beside, path)
