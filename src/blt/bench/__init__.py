"""`blt bench`: this library beside ``transformers``, on the same shape, work and machine."""

from __future__ import annotations

from pathlib import Path


def run(
    file: Path | None = None,
    as_json: bool = False,
    only: tuple[str, ...] = (),
    *,
    generation: bool = False,
    model: Path | None = None,
) -> int:
    """See :func:`blt.bench.run.run` and :func:`blt.bench.generation.run`.

    Imported late because every measurement is a new process.
    """
    if generation:
        from blt.bench.generation import run as run_generation

        return run_generation(file, as_json, model)
    from blt.bench.run import run as run_benchmarks

    return run_benchmarks(file, as_json, only)
