"""A report shows what the runs have logged, whole runs or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blt.errors import UserError
from blt.report.runs import report_runs


def log(folder: Path, scores: list[float | None], **more: Any) -> Path:
    """A run folder whose training has logged a report for each score."""
    folder.mkdir(parents=True)
    lines = []
    for step, score in enumerate(scores, 1):
        event = {
            "event": "train",
            "step": step,
            "progress": step / 10,
            "seconds": 2.0 * step,
            "bytes_seen": 1000 * step,
            "bits_per_byte": 8.0 - step,
            "skipped": 0,
            "waited": 0.0,
            "patch_size": 4.5,
            **more,
        }
        lines.append(
            json.dumps(event | ({} if score is None else {"heldout_bits_per_byte": score}))
        )
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_bytes_per_patch_are_those_of_held_out_text_where_they_were_measured(
    tmp_path: Path,
) -> None:
    run = log(tmp_path / "run", [2.0])
    assert "bytes per patch, last batches" in report_runs([run]).read_text()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "patching", "heldout_patch_size": 4.25}) + "\n")
    page = report_runs([run]).read_text()
    assert "bytes per patch, held out" in page
    assert "4.25" in page


def test_a_run_is_shown_with_what_it_has_logged(tmp_path: Path) -> None:
    by_source = {"books": 3.125, "<code>": 1.5}
    run = log(tmp_path / "run", [None, 2.25], heldout_by_source=by_source)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event": "tra')  # killed while writing
        for step in range(1, 10):
            event = {"event": "sample", "step": step, "prompt": "<p", "text": f"text {step}!"}
            file.write("\n" + json.dumps(event))
    (run / "recipe.toml").write_text("seed = 1234")
    page = report_runs([run]).read_text()
    assert [step for step in range(1, 10) if f"text {step}!" in page] == [3, 6, 9]
    for shown in (
        "20% done",
        "&lt;p",
        "After 9 steps",
        "3.125",
        "2.250",
        "&lt;code&gt;",
        "4.50",
        "seed = 1234",
        "<svg",
    ):
        assert shown in page
    assert 'src="http' not in page
    assert 'href="http' not in page  # nothing is fetched


def test_a_run_that_has_not_been_evaluated_yet_is_shown(tmp_path: Path) -> None:
    page = report_runs([log(tmp_path / "run", [None, None])]).read_text()
    assert "<svg" in page


def test_runs_of_the_same_name_are_told_apart_and_compared(tmp_path: Path) -> None:
    runs = [log(tmp_path / part / "run", [score]) for part, score in (("a", 2.5), ("b", 1.75))]
    page = report_runs(runs, tmp_path / "both.html").read_text()
    assert "2 trainings compared" in page
    for run, score in zip(runs, ("2.500", "1.750"), strict=True):
        assert str(run) in page
        assert score in page
    assert not (runs[0] / "report.html").exists()


def test_what_has_no_reports_is_named(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match="name a run folder"):
        report_runs([tmp_path / "new"])
    with pytest.raises(UserError, match="no step has been reported"):
        report_runs([log(tmp_path / "early", [])])
    with pytest.raises(UserError, match="at least one"):
        report_runs([])


def test_a_prompt_that_no_model_would_continue_is_refused(tmp_path: Path) -> None:
    runs = [log(tmp_path / name, [2.0]) for name in ("one", "two")]
    with pytest.raises(UserError, match="--prompt: is for a single run; leave it out"):
        report_runs(runs, prompt=b"The ")
    with pytest.raises(UserError, match=r"--prompt: .*one: has no checkpoint yet; wait"):
        report_runs(runs[:1], prompt=b"The ")
    assert not [*tmp_path.rglob("*.html")]
