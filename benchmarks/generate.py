"""Generation with caches, beside ``transformers`` without."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import generate_jobs as jobs
from benchmarks.machine import about, apart
from benchmarks.report import print_table, report
from blt.generate.weights import PRECISIONS
from blt.report.console import Console

PEER_PRECISIONS = ("float32", "bfloat16-weights")
BATCHES = (1, 16)
DRAFTS = (0, 2, 4, 8, 12, 16)
LENGTHS = {"short": 1000, "long": 64000}
FORK = {"prompt": 4000, "count": 16}


def main(file: Path | None, as_json: bool, model: Path | None) -> None:
    """Measure, and print tables, JSON or both.

    Args:
        file: also write JSON here.
        as_json: print JSON, unless there is a file, and the tables to standard error.
        model: folder of a trained BLT, for self-speculation and bits per byte; None: without.
    """
    report(partial(collect, model), show, file, as_json)


def collect(model: Path | None, console: Console) -> dict[str, Any]:
    """All measurements as plain data."""

    def measure(job: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
        with console.status(f"{job.__name__}: {arguments}"):
            return apart(job, **arguments)

    results: dict[str, Any] = {"machine": about(), "bandwidth": measure(jobs.bandwidth)}
    results["transformers"] = {p: measure(jobs.peer, precision=p) for p in PEER_PRECISIONS}
    results["ours"] = {p: measure(jobs.ours, precision=p, batches=BATCHES) for p in PRECISIONS}
    best = max(PRECISIONS, key=lambda p: results["ours"][p]["1"]["bytes_per_second"])
    results["best_precision"] = best
    results["length"] = measure(jobs.length, precision=best, **LENGTHS)
    results["fork"] = measure(jobs.fork, precision=best, **FORK)
    if model is not None:
        folder = str(model)
        results["bits"] = {p: measure(jobs.bits, folder=folder, precision=p) for p in PRECISIONS}
        results["speculation"] = {
            name: measure(jobs.speculate, folder=folder, precision=p, drafts=DRAFTS, temperature=t)
            for name, p, t in (("greedy", "float32", 0.0), ("temperature 0.8", "float32", 0.8))
        }
        accepted = results["speculation"]["temperature 0.8"]
        results["proportions"] = measure(
            jobs.proportions,
            precision="bfloat16",  # as the 1B is released
            acceptance={k: accepted[k]["acceptance"] for k in accepted},
        )
    return results


def show(results: dict[str, Any], console: Console) -> None:
    """Print what :func:`collect` returned."""
    read = results["bandwidth"]["bytes_per_second"]
    peers = {p: r["bytes_per_second"] for p, r in results["transformers"].items()}
    console.print(
        f"{results['machine']['cpu']}; memory is read at {read / 1e9:.1f} GB/s; transformers "
        + ", ".join(f"{p}: {speed:.2f} B/s" for p, speed in peers.items())
    )
    columns = ("weights", "batch 1", "x float32 peer", "x best peer", "of floor")
    rows = []
    for precision, by_batch in results["ours"].items():
        one, many = (by_batch[str(batch)]["bytes_per_second"] for batch in BATCHES)
        floor = by_batch["1"]["weight_bytes"] / read
        ratios = (one / peers["float32"], one / max(peers.values()))
        rows.append(
            [precision, f"{one:.0f} B/s"]
            + [f"{ratio:.0f}" for ratio in ratios]
            + [f"{floor * one:.0%}", f"{many:.0f} B/s", f"{many / one:.2f}x"]
        )
    print_table(console, (*columns, "batch 16", "over batch 1"), rows)
    short, long = results["length"]["short"], results["length"]["long"]
    print_table(
        console,
        ("speed at 64000 bytes over 1000", "target"),
        [
            [f"local part {short['local'] / long['local']:.2f}", "0.8"],
            [f"all {short['all'] / long['all']:.2f}", ""],
        ],
    )
    fork = results["fork"]
    console.print(
        f"16 continuations of 4000 bytes: read once {fork['read_once']:.2f} s, each "
        f"{fork['read_each']:.2f} s, {fork['read_each'] / fork['read_once']:.1f}x (target 8x)"
    )
    if "speculation" in results:
        _show_speculation(results, console)


def _show_speculation(results: dict[str, Any], console: Console) -> None:
    bits = {p: f"{r['bits_per_byte']:.4f}" for p, r in results["bits"].items()}
    console.print(f"bits per byte of held-out text by weights: {bits}")
    rows = []
    for name, by_drafts in results["speculation"].items():
        base = by_drafts["0"]
        for k, r in by_drafts.items():
            rows.append(
                [
                    name,
                    k,
                    f"{r['bytes_per_second']:.0f}",
                    f"{r['bytes_per_second'] / base['bytes_per_second']:.2f}x",
                    f"{r['acceptance']:.0%}",
                    f"{1 - r['global_calls'] / base['global_calls']:.0%}",
                    "" if name != "greedy" else "yes" if r["text"] == base["text"] else "NO",
                ]
            )
    base = results["proportions"]["0"]["bytes_per_second"]
    for k, r in results["proportions"].items():
        speed = r["bytes_per_second"]
        rows.append(["1B's proportions", k, f"{speed:.0f}", f"{speed / base:.2f}x", "", "", ""])
    columns = ("text", "drafts", "B/s", "speed", "accepted", "global passes saved", "same text")
    print_table(console, columns, rows)
