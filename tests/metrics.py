"""What a run has written into its metrics.jsonl, also while its training goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def events(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """All, or those of one kind. Of whole lines: the last one may be half written as yet."""
    path = run / "metrics.jsonl"
    written = path.read_text() if path.is_file() else ""
    lines = written[: written.rfind("\n") + 1].splitlines()
    return [event for event in map(json.loads, lines) if kind in (None, event["event"])]


def reports(run: Path) -> list[dict[str, Any]]:
    """Of its steps, in order."""
    return events(run, "train")


def losses(run: Path) -> list[float]:
    """Bits per byte of each step."""
    return [report["bits_per_byte"] for report in reports(run)]
