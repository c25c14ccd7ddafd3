"""Training, scoring and entropies beside ``transformers``, each side in its fastest precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from benchmarks import cpu_jobs, shape
from benchmarks.cpu_jobs import PRECISIONS
from benchmarks.machine import about, apart
from benchmarks.report import print_table, report
from blt.errors import UserError
from blt.model.flops import flops_per_byte
from blt.report.console import Console

GB = 1e9


@dataclass(frozen=True)
class Job:
    """One row: what is measured, at which batch and length, and the ratio we want."""

    name: str
    work: str  # train, score or entropies
    batch: int
    length: int
    target: float


JOBS = (
    Job("train 4 x 2048", "train", 4, 2048, 3.0),
    Job("train 1 x 8192", "train", 1, 8192, 6.0),
    Job("score 1 x 8192", "score", 1, 8192, 10.0),
    Job("entropies 1 x 8192", "entropies", 1, 8192, 8.0),
)
SCALING = ((16, 2048), (4, 8192), (1, 32768))  # batch, length: the same bytes in all
SIDES = ("transformers", "ours")
SHORT = {"float32": "f32", "bfloat16": "autocast", "bfloat16-weights": "bf16"}
MEASURED = ("bytes_per_second", "peak_memory")
REPEATS = 2  # of the fastest precision of each side
MEMORY_TARGET = 0.6  # of the peer's, training at 1 x 8192
SCALING_TARGET = 1.3  # cost per byte at 32768 over that at 2048


def main(file: Path | None = None, as_json: bool = False, only: tuple[str, ...] = ()) -> None:
    """Measure, and print tables, JSON or both.

    Args:
        file: also write JSON here.
        as_json: print JSON, unless there is a file, and the tables to standard error.
        only: names of jobs, or "scaling"; empty for all.
    """
    names = [job.name for job in JOBS] + ["scaling"]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise UserError(f"unknown benchmark {unknown[0]!r}; known: {', '.join(names)}")
    report(lambda console: collect(only or tuple(names), console), show, file, as_json)


def collect(names: tuple[str, ...], console: Console) -> dict[str, Any]:
    """All measurements as plain data."""
    peaks = _peaks(console)
    results: dict[str, Any] = {
        "machine": about(),
        "matmul_peak_flops": peaks,
        "mean_patch_size": shape.MEAN_PATCH_SIZE,
        "jobs": [],
        "scaling": [],
    }
    for job in JOBS:
        if job.name in names:
            results["jobs"].append(_both_sides(job, console))
    if "scaling" in names:
        for batch, length in SCALING:
            with console.status(f"scaling: ours, {batch} x {length}"):
                results["scaling"].append(_scaling(batch, length))
    for name, again in _peaks(console).items():  # the machine's best, before or after
        peaks[name] = max(peaks[name], again)
    for row in (row for row in results["jobs"] if "error" not in row):
        row["share_of_peak"] = row["flops_per_second"] / peaks["bfloat16"]
    return results


def _peaks(console: Console) -> dict[str, float]:
    with console.status("measuring this machine's matrix products"):
        return {p: apart(cpu_jobs.matmul_peak, precision=p)["flops"] for p in PRECISIONS[:2]}


def _measure(job: str, side: str, precision: str, batch: int, length: int) -> dict[str, Any]:
    arguments = {"job": job, "side": side, "precision": precision, "batch": batch, "length": length}
    try:
        return apart(cpu_jobs.measure, **arguments)
    except UserError as error:  # out of memory, say: the other precisions go on
        return {"error": str(error)}


def _both_sides(job: Job, console: Console) -> dict[str, Any]:
    row: dict[str, Any] = {**asdict(job)}
    for side in SIDES:
        row[side] = {p: _announced(console, job, side, p) for p in PRECISIONS}
    lacking = [side for side in SIDES if all("error" in found for found in row[side].values())]
    if lacking:  # the other jobs go on
        return {**row, "error": f"{' and '.join(lacking)}: no precision could be measured"}
    best = {side: _best(row[side]) for side in SIDES}
    # Once more in turns: on a shared machine the first hit may have met a busy neighbour.
    for side, precision in [*best.items()] * REPEATS:
        again, first = _announced(console, job, side, precision), row[side][precision]
        if "error" not in again:
            first |= {name: max(first[name], again[name]) for name in MEASURED}
    speed = {side: row[side][p]["bytes_per_second"] for side, p in best.items()}
    row["best_precision"] = best
    row["ratio"] = speed["ours"] / speed["transformers"]
    row["flops_per_second"] = speed["ours"] * _flops(job)
    if job.work == "train":
        least = {
            side: min(r["peak_memory"] for r in row[side].values() if "error" not in r)
            for side in SIDES
        }
        row["peak_memory"] = least
        row["memory_ratio"] = least["ours"] / least["transformers"]
    return row


def _announced(console: Console, job: Job, side: str, precision: str) -> dict[str, Any]:
    with console.status(f"{job.name}: {side}, {precision}"):
        return _measure(job.work, side, precision, job.batch, job.length)


def _best(results: dict[str, Any]) -> str:
    """The fastest precision, of at least one that could be measured."""
    whole = {name: r for name, r in results.items() if "error" not in r}
    return max(whole, key=lambda name: whole[name]["bytes_per_second"])


def _flops(job: Job) -> float:
    """FLOPs per byte of a job, by the paper's formula."""
    counted = flops_per_byte(shape.CONFIG, shape.MEAN_PATCH_SIZE, job.length)
    if job.work == "train":
        return 3 * counted.total
    return counted.entropy_model if job.work == "entropies" else counted.total_with_entropy_model


def _scaling(batch: int, length: int) -> dict[str, Any]:
    rows = {work: _measure(work, "ours", "bfloat16", batch, length) for work in ("train", "score")}
    return {"batch": batch, "length": length, **rows}


def show(results: dict[str, Any], console: Console) -> None:
    """Print what :func:`collect` returned."""
    peaks = results["matmul_peak_flops"]
    console.print(
        f"{results['machine']['cpu']}, {results['machine']['threads']} threads, "
        f"torch {results['machine']['torch']}, transformers {results['machine']['transformers']}; "
        f"matrix products: {peaks['float32'] / 1e9:.0f} GFLOP/s float32, "
        f"{peaks['bfloat16'] / 1e9:.0f} bfloat16"
    )
    title = (
        "bytes per second, each side in its fastest precision (f32, bf16 autocast, bf16 weights)"
    )
    columns = ("job", "transformers", "ours", "ratio", "target", "share of bf16 peak")
    rows = [cells for row in results["jobs"] for cells in _cells(row)]
    print_table(console, columns, rows, title)
    if results["scaling"]:
        _show_scaling(results["scaling"], console)


def _cells(row: dict[str, Any]) -> Iterator[list[str]]:
    """The row of a job, and one of its memory if that is measured."""
    if "error" in row:
        yield [row["name"], row["error"], "", "", "", ""]
        return
    speeds = []
    for side in SIDES:
        best = row["best_precision"][side]
        speeds.append(f"{row[side][best]['bytes_per_second']:.0f} ({SHORT[best]})")
    ratio, target = f"{row['ratio']:.2f}x", f">= {row['target']:.0f}x"
    yield [row["name"], *speeds, ratio, target, f"{row['share_of_peak']:.0%}"]
    if "memory_ratio" in row:
        sizes = [f"{row['peak_memory'][side] / GB:.2f} GB" for side in SIDES]
        target = f"<= {MEMORY_TARGET}x" if row["length"] == 8192 else ""
        yield ["  peak memory", *sizes, f"{row['memory_ratio']:.2f}x", target, ""]


def _show_scaling(rows: list[dict[str, Any]], console: Console) -> None:
    title = f"ours, 32768 bytes in all; target: at most {SCALING_TARGET}x the cost"
    columns = ("batch x length", "train", "cost", "memory", "score", "cost", "memory")
    lines = []
    for row in rows:
        cells = [f"{row['batch']} x {row['length']}"]
        for work in ("train", "score"):
            cells += _scaled(row[work], rows[0][work])
        lines.append(cells)
    print_table(console, columns, lines, title)


def _scaled(found: dict[str, Any], first: dict[str, Any]) -> list[str]:
    """Speed, cost per byte over that of the first row, and memory; or why there is none."""
    if "error" in found:
        return [escape(found["error"]), "", ""]
    speed = found["bytes_per_second"]
    cost = "" if "error" in first else f"{first['bytes_per_second'] / speed:.2f}x"
    return [f"{speed:.0f} B/s", cost, f"{found['peak_memory'] / GB:.2f} GB"]
