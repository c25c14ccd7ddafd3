"""From sources to shards: what ``blt prepare`` does, here or on a Ray cluster.

The work is cut into units, a source file each. A unit's shards are written into a folder beside its
place and moved there whole, so a kill loses the units in work and nothing else; run again, it goes
on. What a unit's shards hold depends on the unit and the options alone, not on who writes them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from blt.data.census import Census, division_of, to_json
from blt.data.cluster import on_ray
from blt.data.files import Found
from blt.data.form import AnySource, path_of
from blt.data.heldout import Division
from blt.data.left_out import Tally
from blt.data.manifest import FORMAT, MANIFEST, MARKED_FORMAT, UNITS, Shard, read_manifest
from blt.data.shards import ShardInfo, totals, write_lengths
from blt.data.sources import units
from blt.data.worker import (
    UNIT,
    Options,
    Outcome,
    Task,
    Worker,
    nobody,
    place_of,
    stamp_of,
    template_of,
)
from blt.errors import UserError, require
from blt.files import durable
from blt.files.configs import from_dict, to_dict
from blt.files.lock import held, holds_nothing
from blt.files.strict_json import parse_object

__all__ = ["OnProgress", "Options", "Outcome", "Task", "Worker", "prepare"]

PLAN = "plan.json"
RAY_DEVICES = ("auto", "cpu", "cuda")  # Ray says which GPU a worker has

# Units done, of how many, and the last one, or what there is so far of the one in work.
OnProgress = Callable[[int, int, Outcome], None]


def prepare(
    folder: str | os.PathLike[str],
    options: Options,
    *,
    ray_workers: int | None = None,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Write the shards of ``options.sources`` into ``folder``, or what is missing of them.

    Args:
        folder: new, or one that an earlier call with the same options was writing.
        ray_workers: do the work on Ray with so many at once; None: here, one unit after another.
        device: where the entropy model works: cpu, cuda, cuda:1 or auto. On Ray with cuda each
            worker takes a GPU of the cluster, with cpu or auto none.
        on_progress: called after every unit, and here also within it, after every megabyte.

    Returns:
        the manifest.

    Raises:
        UserError: no documents, unreadable sources, a folder that holds something else or that
            another program is writing into, a full disk; what was whole stays, and another call
            goes on.
    """
    out, found = Path(folder), Found()
    if ray_workers is not None:
        require(ray_workers >= 1, f"workers must be at least 1, got {ray_workers}")
        known = " or ".join(RAY_DEVICES)
        require(device in RAY_DEVICES, f"device: a worker on Ray has {known}, not {device!r}")
    tasks = list(_tasks(options.sources, found))
    # Before anything is written: it may not find its model.
    worker = Worker(out, options, device if ray_workers is None else "cpu")
    writes = _here if ray_workers is None else partial(_on_ray, ray_workers, device)
    work = partial(writes, worker, len(tasks), on_progress or nobody)
    _make(out)
    with held(out):
        _begin(out, options, worker.identity, tasks)
        undone = [task for task in tasks if not _is_done(out, task)]
        if undone:
            (out / MANIFEST).unlink(missing_ok=True)  # of files that have changed since
        work(undone)
        to_hold = to_json(_division(out, tasks, options.heldout))
        again = [task for task in tasks if _outcome(out, task).division != to_hold]
        work([replace(task, division=to_hold) for task in again])
        return _finish(out, options, worker.identity, tasks, found.left_out)


def _here(worker: Worker, total: int, show: OnProgress, tasks: Sequence[Task]) -> None:
    """Write the shards of ``tasks``, the last ones of ``total``."""
    for done, task in enumerate(tasks, total - len(tasks)):
        worker.tell = partial(show, done, total)
        show(done + 1, total, worker(task))


def _on_ray(
    workers: int,
    device: str,
    worker: Worker,
    total: int,
    show: OnProgress,
    tasks: Sequence[Task],
) -> None:
    """The same on Ray, so many at once."""
    outcomes = on_ray(worker, tasks, workers, "cpu" if device == "auto" else device)
    for done, outcome in enumerate(outcomes, total - len(tasks) + 1):
        show(done, total, outcome)


def _division(out: Path, tasks: Sequence[Task], heldout: float) -> Division | None:
    found = [_outcome(out, task).census for task in tasks]
    if not all(found):  # some were written by an earlier version
        return None
    return division_of([Census(**census) for census in found], heldout)


def _tasks(sources: Sequence[AnySource], found: Found) -> Iterator[Task]:
    number = 0
    for source in sources:
        before, name = number, path_of(source)
        table = "" if isinstance(source, str) else json.dumps(to_dict(source, keep_none=False))
        for unit in units(source, found):
            yield Task(number, name, unit.name, unit.named, table=table)
            number += 1
        if number == before:
            left_out = f"; left out: {found.left_out}" if found.left_out else ""
            raise UserError(f"{name}: no text in it{left_out}; name a file that has some")


def _outcome(out: Path, task: Task) -> Outcome:
    """What became of a unit that was written whole."""
    place = place_of(out, task.number)
    outcome = from_dict(Outcome, _read(place / UNIT, place), str(place / UNIT))
    for shard in outcome.shards:
        Shard.check(shard, str(place / UNIT))
    return outcome


def _is_done(out: Path, task: Task) -> bool:
    """Was a unit written whole, of the source file as it is now?"""
    if not (place_of(out, task.number) / UNIT).is_file():
        return False
    return _outcome(out, task).stamp in ([], stamp_of(task.unit))  # earlier versions noted none


def _make(out: Path) -> None:
    """Make the folder, unless it is there and holds nothing but what this made."""
    known = out.is_dir() and ((out / PLAN).is_file() or holds_nothing(out))
    if out.exists() and not known:  # not even a lock is left in there
        raise UserError(f"{out}: holds something else; choose another folder")
    out.mkdir(parents=True, exist_ok=True)


def _begin(out: Path, options: Options, identity: str | None, tasks: Sequence[Task]) -> None:
    """Say in the folder what is written into it, or check that it was the same job."""
    plan = {
        "options": _plain(options),
        "entropy_model": identity,
        "units": [[task.source, task.unit, _size(task.unit)] for task in tasks],
    }
    path = out / PLAN
    if path.is_file():
        if _job(_read(path, out)) != _job(json.loads(json.dumps(plan))):
            raise UserError(
                f"{path}: this folder is being written with other sources, options or entropy "
                "model; use those again, or choose another folder"
            )
        for left in (out / UNITS).glob(".*"):  # of a unit that was not finished
            shutil.rmtree(left, ignore_errors=True)
        return
    durable.write_json(path, plan)


def _job(plan: dict[str, Any]) -> dict[str, Any]:
    """What must stay: how many lines may be broken changes nothing of what is written."""
    options = plan.get("options")
    if not isinstance(options, dict):
        return plan
    return {**plan, "options": {k: v for k, v in options.items() if k != "max_broken"}}


def _plain(options: Options) -> dict[str, Any]:
    """As JSON; of a folder without conversations as earlier versions wrote it."""
    found = to_dict(options)
    return {k: v for k, v in found.items() if v is not None or k not in ("learn", "template")}


def _size(unit: str) -> int | None:
    """A source file of another size belongs to another plan."""
    path = Path(unit)
    return path.stat().st_size if path.is_file() else None


def _finish(
    out: Path, options: Options, identity: str | None, tasks: Sequence[Task], left_out: Tally
) -> dict[str, Any]:
    outcomes, as_text = [_outcome(out, task) for task in tasks], Tally()
    for outcome in outcomes:
        left_out.add_facts(outcome.left_out)
        as_text.add_facts(outcome.as_text)
    shards = [shard for outcome in outcomes for shard in outcome.shards]
    if not shards:
        shutil.rmtree(out, ignore_errors=True)  # it holds nothing; some systems keep the lock
        names = ", ".join(map(path_of, options.sources))
        raise _no_text(names, outcomes, left_out, "name files that have some")
    for name in map(path_of, options.sources):
        own = [outcome for outcome in outcomes if outcome.source == name]
        if not any(outcome.documents for outcome in own):
            way_out = f"leave it out, or name files that have some, with another folder than {out}"
            raise _no_text(name, own, _left_out(own), way_out)
    infos = [ShardInfo(**shard) for shard in shards]
    lengths = write_lengths(out, infos)
    marked = any(outcome.marked for outcome in outcomes)
    model = {"name": options.entropy_model, "identity": identity}
    manifest = {
        "format": MARKED_FORMAT if marked else FORMAT,
        "options": _plain(replace(options, template=None)),
        "entropy_model": model if identity else None,
        "documents": sum(outcome.documents for outcome in outcomes),
        "bytes": sum(outcome.bytes for outcome in outcomes),
        "broken": sum(outcome.broken for outcome in outcomes),
        "left_out": left_out.facts(),
        "read_as_one_text": as_text.facts(),
        "cut_documents": sum(outcome.cut for outcome in outcomes),
        "splits": totals(infos),
        "units": [_listed(outcome) for outcome in outcomes],
        "shards": shards,
        "lengths": lengths,
    }
    if marked:
        manifest["learn"] = options.learn or "completions"
    if (template := template_of(options)) is not None:
        manifest["chat_template"] = template.source
    durable.write_json(out / MANIFEST, manifest)
    return read_manifest(out)


def _left_out(outcomes: Sequence[Outcome]) -> Tally:
    found = Tally()
    for outcome in outcomes:
        found.add_facts(outcome.left_out)
    return found


def _no_text(name: str, outcomes: Sequence[Outcome], left_out: Tally, way_out: str) -> UserError:
    """Says what there was instead."""
    lines = [line for outcome in outcomes for line in outcome.broken_lines]
    nothing = any(outcome.nothing_to_learn for outcome in outcomes)
    what = "nothing in it is learned; learn all of it, with --learn all" if nothing else ""
    parts = [f"{name}: {what or 'no text in there'}"]
    parts += [f"the first line left out is {line}" for line in lines[:1]]
    parts += [f"left out: {left_out}"] if left_out else []
    return UserError("; ".join([*parts, way_out]))


def _listed(outcome: Outcome) -> dict[str, Any]:
    """A unit in the manifest."""
    found = {**asdict(outcome), "shards": len(outcome.shards)}
    unmarked = () if outcome.marked else ("marked", "nothing_to_learn")
    inside = ("census", "division", "stamp", *unmarked)
    return {name: value for name, value in found.items() if name not in inside}


def _read(path: Path, delete: Path) -> dict[str, Any]:
    return parse_object(path.read_bytes(), str(path), f"delete {delete} and run it again")
