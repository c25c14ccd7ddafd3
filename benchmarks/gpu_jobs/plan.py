"""What is measured on a GPU, the most important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from blt.errors import UserError

PACKAGE = "benchmarks.gpu_jobs"


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        name: its row.
        work: ``module:function``, a generator: called with a
            :class:`benchmarks.gpu_jobs.place.Place` and ``arguments``, it yields what it finds.
        limit: seconds after which it is killed; what it has found until then stays.
        quick: is it one of the few that ``--quick`` runs?
    """

    name: str
    work: str
    limit: float
    arguments: dict[str, Any] = field(default_factory=dict)
    quick: bool = False


def _job(name: str, work: str, limit: float, quick: bool = False, **arguments: Any) -> Job:
    return Job(name, f"{PACKAGE}.{work}", limit, arguments, quick)


def _training(name: str, config: str, limit: float, quick: bool = False, **arguments: Any) -> Job:
    return _job(f"training {name}", "training:training", limit, quick, config=config, **arguments)


def _decoding(batch: int, rule: str, limit: float, quick: bool = False) -> Job:
    name = f"decoding 1b batch {batch} {rule}"
    arguments = {"config": "1b", "batch": batch, "rule": rule}
    return _job(name, "decoding:decoding", limit, quick, **arguments)


CONTEXT = 8192  # bytes
# First steps may compile for a minute, which later ones of the same widths find on the disk.
JOBS: tuple[Job, ...] = (
    _job("device", "device:device", 20, quick=True),
    _job("parity", "parity:parity", 60, quick=True),
    _training("1b 32768", "1b", 100, quick=True, rows=4, profile=True),
    _decoding(1, "entropy", 60, quick=True),
    _decoding(64, "entropy", 60, quick=True),
    _training("small 65536", "small", 90, quick=True, rows=8, profile=True),
    _job("entropies 100m", "entropies:entropies", 70, quick=True, rows=16),
    _training("1b 32768 patches of 8", "1b", 60, rows=4, patch_size=8.0),
    _training("tokens of the 1b's size", "tokens", 80, rows=4),
    _job("loop small 65536", "loop:loop", 120, rows=8),
    _job("self-speculation pretrained", "decoding:speculation", 40),
    _training("400m 32768", "400m", 90, rows=4),
    _job("transformers training small 16384", "peer:training", 40, config="small", rows=2),
    _job("transformers training 1b 8192", "peer:training", 60, config="1b", rows=4, context=2048),
    _decoding(16, "entropy", 40),
    _decoding(1, "lookup", 30),
    _decoding(64, "lookup", 45),
    _training("1b 65536 recomputed", "1b", 60, rows=8, recomputed=True),
    _decoding(256, "entropy", 60),
    _job("transformers decoding 1b", "peer:decoding", 40, config="1b"),
    _training("1b 65536", "1b", 50, rows=8),
    _decoding(16, "lookup", 30),
    _decoding(256, "lookup", 50),
    _training("small 65536 not compiled", "small", 30, rows=8, compiled=False),
    _training("1b 32768 not compiled", "1b", 40, rows=4, compiled=False),
)


def chosen(jobs: Sequence[Job], quick: bool, only: Sequence[str]) -> list[Job]:
    """The quick ones, or all; of these, with ``only``, those it names, in its order.

    Args:
        only: names of jobs; one that no job has stands for all whose names begin so.

    Raises:
        UserError: a name that no job has or begins with.
    """
    found = [job for job in jobs if job.quick or not quick]
    return list({job.name: job for name in only for job in _named(found, name)}.values()) or found


def _named(jobs: Sequence[Job], name: str) -> list[Job]:
    """The job of a name; if there is none, those whose names begin so."""
    begin = [job for job in jobs if job.name.startswith(name)]
    if not begin:
        known = ", ".join(job.name for job in jobs)
        raise UserError(f"no job begins with {name!r}; known: {known}")
    return [job for job in begin if job.name == name] or begin
