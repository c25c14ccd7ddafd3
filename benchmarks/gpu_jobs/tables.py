"""What was found, as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.gpu_jobs.targets import TARGETS, Results

# How numbers are written, by kind.
WRITTEN: dict[str, Callable[[Any], str]] = {
    "speed": lambda value: f"{value:,.0f} bytes/s",
    "share": lambda value: f"{value:.1%}",
    "times": lambda value: f"{value:.2f}x",
    "seconds": lambda value: f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms",
    "memory": lambda value: f"{value / 1e9:.1f} GB",
    "number": lambda value: f"{value:.4g}" if isinstance(value, float) else str(value),
}
# Of results, by their names; others are written as their name and the number.
KINDS = {
    "mfu": "share", "mbu": "share", "busy_share": "share", "share_of_bare": "share",
    "waited": "share", "speedup": "times", "memory_budget": "memory",
}  # fmt: skip
LABELS = {
    "mfu": "of the peak", "mbu": "of the memory's peak", "busy_share": "busy",
    "share_of_bare": "of bare steps",
}  # fmt: skip
PROFILES = 2  # that are shown; the others are in files
APART = ("took", "peak_memory", "error", "top_kernels")  # not among the results of a row


def markdown(about: dict[str, Any], results: Results, smoke: bool = False) -> str:
    """The machine, the targets, a row for every job, and the kernels that take most.

    Args:
        smoke: tiny shapes, which say nothing about targets.
    """
    lines = ["# Do the jobs run? Tiny shapes, no measurement" if smoke else "# On a GPU", ""]
    lines.append(", ".join(f"{key} {value}" for key, value in about.items() if value is not None))
    if not smoke:
        lines += ["", "| target | wanted | measured | |", "|---|---|---|---|", *_targets(results)]
    lines += ["", "| job | result | peak memory | took |", "|---|---|---|---|"]
    lines += [row(name, found) for name, found in results.items()]
    profiles = [
        (name, found["top_kernels"]) for name, found in results.items() if "top_kernels" in found
    ]
    for name, kernels in profiles[:PROFILES]:
        lines += ["", f"Where the time of {name} goes:", "", "| kernel | ms | times |"]
        lines += ["|---|---|---|"]
        lines += [f"| {_cell(kernel)} | {ms:.3f} | {times:g} |" for kernel, ms, times in kernels]
    return "\n".join(lines) + "\n"


def _targets(results: Results) -> list[str]:
    lines = []
    for target in TARGETS:
        found, verdict = target.verdict(results)
        written = WRITTEN[target.kind]
        sign = "≤" if target.at_most else "≥"
        measured = "" if found is None else written(found)
        lines.append(f"| {target.what} | {sign} {written(target.goal)} | {measured} | {verdict} |")
    return lines


def row(name: str, found: dict[str, Any]) -> str:
    """What one job found, as a row of the table."""
    shown = [
        result(key, value) for key, value in found.items() if key not in APART and value is not None
    ]
    if "error" in found:
        shown.append(f"**{_cell(found['error'])}**")
    memory = WRITTEN["memory"](found["peak_memory"]) if "peak_memory" in found else ""
    took = f"{found['took']:.0f} s" if "took" in found else ""
    return f"| {name} | {', '.join(shown)} | {memory} | {took} |"


def result(key: str, value: Any) -> str:
    """One number with its name or unit."""
    label, kind = LABELS.get(key, key.replace("_", " ")), KINDS.get(key)
    if kind is None and "bytes_per_second" in key:
        before, after = (part.replace("_", " ") for part in key.split("bytes_per_second"))
        return before + WRITTEN["speed"](value) + after
    if kind is None and key.endswith("_seconds"):
        return f"{key.removesuffix('_seconds').replace('_', ' ')} {WRITTEN['seconds'](value)}"
    if kind is None:
        return f"{label} {_cell(WRITTEN['number'](value))}"
    return f"{WRITTEN[kind](value)} {label}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
