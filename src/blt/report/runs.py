"""The report of one training, or of several side by side, from what their run folders hold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.filesize import decimal

from blt.errors import UserError, require
from blt.lm import load
from blt.report.html import Curve, ReportData, Scored, Written, write_report
from blt.report.progress import clock
from blt.train.run import METRICS, RECIPE, RunFolder

SAMPLE_BYTES = 400
SAMPLES = 4  # of those logged


@dataclass(frozen=True)
class RunData:
    """What a run has logged."""

    path: Path
    name: str
    events: list[dict[str, Any]]

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("event") == "train"]

    @property
    def scored(self) -> list[dict[str, Any]]:
        return [report for report in self.reports if "heldout_bits_per_byte" in report]


def report_runs(
    folders: Sequence[Path],
    out: Path | None = None,
    prompt: bytes = b"",
    device: str | torch.device = "auto",
) -> Path:
    """Write one self-contained HTML file about runs.

    Args:
        folders: run folders, finished or not.
        out: the file; None: ``report.html`` in the folder, or ``compared.html`` in the first.
        prompt: of a single run: what its model is to continue, for a sample.
        device: where it does so.

    Raises:
        UserError: not a run folder, or one that has no report yet, or no model to continue a
            prompt.
    """
    if not folders:
        raise UserError("name at least one run folder")
    names = [folder.resolve().name for folder in folders]
    unique = len(set(names)) == len(names)
    runs = [
        read_run(folder, folder.resolve().name if unique else str(folder)) for folder in folders
    ]
    if prompt:
        _check_continued(folders)
    data = _one(runs[0], prompt, device) if len(runs) == 1 else _several(runs)
    own = "report.html" if len(runs) == 1 else "compared.html"  # beside the report of the first
    return write_report(out or runs[0].path / own, data)


def read_run(folder: Path, name: str) -> RunData:
    """What the run in a folder has logged.

    Raises:
        UserError: not a run folder, or one that has no report yet.
    """
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"{folder}: no {METRICS} here; name a run folder of blt train")
    events = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # a line that a kill cut off
    run = RunData(folder, name, events)
    if not run.reports:
        raise UserError(f"{path}: no step has been reported yet; wait a little")
    return run


def _check_continued(folders: Sequence[Path]) -> None:
    """A prompt is for one run, whose model is there.

    Raises:
        UserError: several runs, or one without a checkpoint.
    """
    require(len(folders) == 1, "--prompt: is for a single run; leave it out, or name one run")
    there = RunFolder(folders[0]).has_checkpoint
    require(there, f"--prompt: {folders[0]}: has no checkpoint yet; wait, or leave it out")


def _one(run: RunData, prompt: bytes, device: str | torch.device) -> ReportData:
    recipe = run.path / RECIPE
    return ReportData(
        title=f"Training {run.name}",
        subtitle=f"{run.reports[-1]['progress']:.0%} done",
        facts=_facts(run),
        scores=_by_source(run) or _scores([run]),
        curves=_curves(run),
        samples=_samples(run, prompt, device),
        recipe=recipe.read_text() if recipe.is_file() else "",
    )


def _several(runs: Sequence[RunData]) -> ReportData:
    shown = ("text", "time", "speed")
    facts = [
        (run.name, ", ".join(value for label, value in _facts(run) if label in shown))
        for run in runs
    ]
    return ReportData(
        title=f"{len(runs)} trainings compared",
        subtitle="Curves of training batches; scores of each run's own held-out text.",
        facts=facts,
        scores=_scores(runs),
        curves=[_curve(run.name, run.reports, "bits_per_byte") for run in runs],
    )


def _facts(run: RunData) -> list[tuple[str, str]]:
    last = run.reports[-1]
    facts = [
        ("steps", f"{last['step']:,}"),
        ("text", f"{last['bytes_seen'] / 1e6:,.1f} MB"),
        ("time", clock(last["seconds"])),
        ("speed", f"{last['bytes_seen'] / max(1e-9, last['seconds']) / 1000:,.1f} kB/s"),
    ]
    cuts = [event for event in run.events if event.get("event") == "patching"]
    heldout = [cut["heldout_patch_size"] for cut in cuts if "heldout_patch_size" in cut]
    if heldout:
        facts.append(("bytes per patch, held out", f"{heldout[-1]:.2f}"))
    elif "patch_size" in last:
        facts.append(("bytes per patch, last batches", f"{last['patch_size']:.2f}"))
    if "mfu" in last:
        facts.append(("share of peak", f"{last['mfu']:.0%}"))
    if "memory" in last:
        facts.append(("memory", decimal(last["memory"])))
    if last["skipped"]:
        facts.append(("skipped steps", str(last["skipped"])))
    waited = [report["waited"] for report in run.reports if "waited" in report]
    if waited:
        facts.append(("waited for batches", f"{sum(waited) / len(waited):.2%}"))
    return facts


def _scores(runs: Sequence[RunData]) -> list[Scored]:
    values = {run.name: run.scored[-1]["heldout_bits_per_byte"] for run in runs if run.scored}
    best = min(values.values(), default=math.nan)
    return [Scored(name, value, highlight=value == best) for name, value in values.items()]


def _by_source(run: RunData) -> list[Scored]:
    """Bits of each source at the last evaluation, where there are several."""
    by_source = run.scored[-1].get("heldout_by_source", {}) if run.scored else {}
    scores = [Scored(name, value) for name, value in by_source.items()]
    if not scores:
        return []
    return [*scores, Scored("together", run.scored[-1]["heldout_bits_per_byte"], highlight=True)]


def _curves(run: RunData) -> list[Curve]:
    curves = [_curve("training batches", run.reports, "bits_per_byte")]
    if run.scored:
        curves.append(_curve("held out", run.scored, "heldout_bits_per_byte"))
    return curves


def _curve(name: str, reports: Sequence[dict[str, Any]], key: str) -> Curve:
    columns = ([report.get(k, math.nan) for report in reports] for k in ("seconds", "bytes_seen"))
    seconds, bytes_seen = columns
    return Curve(name, seconds, bytes_seen, [report.get(key, math.nan) for report in reports])


def _samples(run: RunData, prompt: bytes, device: str | torch.device) -> list[Written]:
    """What was logged, evenly spread and the last one, and what the model makes of ``prompt``."""
    logged = [event for event in run.events if event.get("event") == "sample"]
    every = max(1, -(-len(logged) // SAMPLES))
    samples = [
        Written(event["text"].encode(), event["prompt"].encode(), f"After {event['step']:,} steps")
        for event in logged[::-1][::every][::-1]
    ]
    if prompt:
        options: dict[str, Any] = {"max_bytes": SAMPLE_BYTES, "temperature": 0.8}
        written = load(run.path / "checkpoint", device).generate(prompt, **options)
        samples.append(Written(written.data, prompt, "Now"))
    return samples
