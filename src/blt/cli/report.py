"""``blt report``: an HTML report of trainings."""

from __future__ import annotations

import os
from pathlib import Path

from tyro.conf import Positional

from blt.cli.device import Device, chosen
from blt.cli.output import say


def report(
    runs: Positional[tuple[Path, ...]],
    /,
    *,
    out: Path | None = None,
    prompt: str = "",
    device: Device = "auto",
) -> None:
    """Write an HTML report of a training, or one that compares several; no network needed.

    Args:
        runs: Run folders of blt train, finished or not.
        out: File to write. Left out: report.html in the folder; of several, compared.html in the
            first.
        prompt: Of a single run: a text that its model is to continue in the report.
    """
    from blt.report.runs import report_runs

    say(report_runs(runs, out, os.fsencode(prompt), chosen(device)))
