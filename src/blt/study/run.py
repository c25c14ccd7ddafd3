"""Runs the points of a study one after another; killed at any moment, it goes on there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.config_io import to_dict
from blt.data import read
from blt.data.shards import is_prepared
from blt.errors import UserError
from blt.evals.bpb import bits_per_byte, choose
from blt.evals.overlap import overlap
from blt.evals.tasks import patch_size
from blt.lm import LanguageModel
from blt.precision import choose_dtype
from blt.study.config import Point, Study
from blt.train.job import train_recipe
from blt.train.loop import OnProgress, Report
from blt.train.run import CHECKPOINT, RECIPE, TENSORS

RESULTS, RUNS, OVERLAP, PLAN = "results.jsonl", "runs", "overlap.json", "plan.json"
OnPoint = Callable[[Point, int, int], OnProgress]  # which of how many → where its reports go


@dataclass(frozen=True)
class Heldout:
    """Kinds of text to score."""

    kinds: dict[str, list[bytes]]

    @classmethod
    def read(cls, study: Study) -> Heldout:
        return cls({name: _plain(sources) for name, sources in study.heldout.items()})

    def all(self, max_bytes: int) -> list[bytes]:
        """Of all kinds, as many bytes of each as are scored."""
        return [text for texts in self.kinds.values() for text in choose(texts, max_bytes)]


def _plain(sources: Sequence[str]) -> list[bytes]:
    """Documents of sources that are not prepared."""
    for name in sources:
        if is_prepared(name):
            raise UserError(f"{name}: is a prepared folder; name the text that it was made of")
    return read(sources).documents


def run_study(
    study: Study,
    folder: str | os.PathLike[str],
    *,
    on_point: OnPoint | None = None,
) -> list[dict[str, Any]]:
    """Train and score what is missing in ``folder``.

    Args:
        folder: new, or of the same study.
        on_point: called before each run.

    Returns:
        the results of all runs, as in ``folder/results.jsonl``.

    Raises:
        UserError: a bad recipe, text or folder.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    out, points, heldout = Path(folder), list(study.points()), Heldout.read(study)
    _begin(out, study)
    if not (out / OVERLAP).is_file():
        _write(out / OVERLAP, check_overlap(study, heldout))
    done = {result["name"] for result in read_results(out)}
    for number, point in enumerate(points, 1):
        if point.name in done:
            continue
        show = on_point(point, number, len(points)) if on_point else None
        try:
            result = _run(point, study, out / RUNS / point.name, heldout, show)
        except KeyboardInterrupt:
            message = f"stopped in run {number}; the same command goes on there"
            raise KeyboardInterrupt(message) from None
        with (out / RESULTS).open("a") as file:
            file.write(json.dumps(result) + "\n")
        # The optimisers' state is of no use any more.
        shutil.rmtree(out / RUNS / point.name / CHECKPOINT / TENSORS, ignore_errors=True)
    return read_results(out)


def _begin(out: Path, study: Study) -> None:
    """Make the folder, or check that it belongs to the same study."""
    (out / RUNS).mkdir(parents=True, exist_ok=True)
    made = {
        "scored": {"heldout": study.heldout, "heldout_bytes": study.heldout_bytes},
        "runs": {point.name: to_dict(point.recipe) for point in study.points()},
    }
    plan, path = json.loads(json.dumps(made)), out / PLAN  # as it is read back
    old = json.loads(path.read_text()) if path.is_file() else plan
    if old["scored"] != plan["scored"]:
        raise UserError(f"{out}: its runs were scored on other text; choose another folder")
    for name, recipe in old["runs"].items():
        if plan["runs"].get(name, recipe) != recipe:
            raise UserError(f"{out}: run {name} had another recipe; choose another folder")
    _write(path, {"scored": plan["scored"], "runs": {**old["runs"], **plan["runs"]}})


def read_results(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Of the runs that have ended; a line that a kill cut off is left out."""
    path = Path(folder) / RESULTS
    if not path.is_file():
        return []
    lines, whole = path.read_text().splitlines(), []
    for line in lines:
        try:
            whole.append(json.loads(line))
        except ValueError:
            continue
    if len(whole) < len(lines):  # so that the next line does not join it
        _write_text(path, "".join(json.dumps(result) + "\n" for result in whole))
    return whole


def check_overlap(study: Study, heldout: Heldout) -> dict[str, float]:
    """Share of each kind's 50-byte blocks that occur in the training text."""
    names: Sequence[str] = study.base.get("data", {}).get("sources", ())
    if not names:
        raise UserError(f"{study.where}: base.data.sources names no text")
    train = _plain(names)
    return {kind: overlap(train, documents) for kind, documents in heldout.kinds.items()}


def _run(
    point: Point, study: Study, folder: Path, heldout: Heldout, show: OnProgress | None
) -> dict[str, Any]:
    """Train one point, from its checkpoint if there is one, and score it."""
    reports: list[Report] = []

    def on_progress(report: Report) -> None:
        reports.append(report)
        if show is not None:
            show(report)

    model = train_recipe(point.recipe, folder, (folder / RECIPE).is_file(), on_progress)
    last = reports[-1]
    return {
        "name": point.name,
        "family": point.family,
        "budget": point.budget,
        "seed": point.seed,
        "flops": last.flops,
        "bytes_seen": last.bytes_seen,
        "seconds": last.seconds,
        "patch_size": patch_size(
            model, heldout.all(study.heldout_bytes), point.recipe.data.context_bytes
        ),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "skipped": last.skipped,
        "bits_per_byte": _scores(model, point, study, heldout),
    }


def _scores(model: LanguageModel, point: Point, study: Study, heldout: Heldout) -> dict[str, float]:
    how: dict[str, Any] = {
        "context_bytes": point.recipe.data.context_bytes,
        "max_bytes": study.heldout_bytes,
        "dtype": choose_dtype(point.recipe.train.precision, model.device),
    }
    return {
        kind: bits_per_byte(model, documents, **how) for kind, documents in heldout.kinds.items()
    }


def _write(path: Path, data: Any) -> None:
    _write_text(path, json.dumps(data, indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    os.replace(beside, path)
