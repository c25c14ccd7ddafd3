"""``blt verify``: what is damaged in a folder, or that nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal
from tyro.conf import Positional

if TYPE_CHECKING:
    from blt.report.verify import Verdict


def verify(folder: Positional[Path], /) -> int:
    """Read a model, a run or prepared text whole, and name what is damaged in it.

    Ends with status 1 where something is.

    Args:
        folder: Model folder in any layout, run folder of blt train, or folder of blt prepare.
    """
    from blt.report.verify import verify as run

    verdict = run(folder)
    print_verdict(folder, verdict)
    return 1 if verdict.faults else 0


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
