"""Options of several verbs, refused by the names that they have on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from blt.errors import require, require_number, require_whole


def check_options(counts: Mapping[str, int], seconds: Mapping[str, float] | None = None) -> None:
    """Positive ones, refused by the names that they have on the command line."""
    for option, count in counts.items():
        require_whole(f"--{option}", count, 1)
    for option, time in (seconds or {}).items():
        require_number(f"--{option}", time)
        require(time > 0, f"--{option} must be positive, got {time}")
