"""`blt bench`: this library beside ``transformers``, on the same shape, work and machine."""

from __future__ import annotations

from pathlib import Path


def run(file: Path | None = None, as_json: bool = False, only: tuple[str, ...] = ()) -> int:
    """See :func:`blt.bench.run.run`; imported late because every measurement is a new process."""
    from blt.bench.run import run as run_benchmarks

    return run_benchmarks(file, as_json, only)
