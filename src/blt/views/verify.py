"""What ``blt verify`` prints."""

from __future__ import annotations

from pathlib import Path

from rich.filesize import decimal

from blt.verify import Verdict


def print_verdict(folder: Path, verdict: Verdict) -> None:
    """Each fault on a line, and what could be told."""
    for fault in verdict.faults:
        print(f"damaged: {fault}")
    files = "1 file" if verdict.files == 1 else f"{verdict.files} files"
    checked = f"{files} with checksums, {decimal(verdict.bytes)}"
    if verdict.unsigned:
        names = ", ".join(path.name for path in verdict.unsigned[:3])
        more = f" and {len(verdict.unsigned) - 3} more" if len(verdict.unsigned) > 3 else ""
        checked += f"; without, so that only their form was checked: {names}{more}"
    faults = "1 fault" if len(verdict.faults) == 1 else f"{len(verdict.faults)} faults"
    print(f"{folder}: {faults if verdict.faults else 'whole'} ({checked})")
