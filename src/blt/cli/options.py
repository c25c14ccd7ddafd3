"""Options of several verbs, refused by the names that they have on the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from blt.errors import require, require_number, require_whole


def on_the_command_line(name: str) -> str:
    """What tyro makes of the name of a parameter."""
    return f"--{name.replace('_', '-')}"


def refuse_idle(verb: str, given: Collection[str], takes: Collection[str]) -> None:
    """Refuse options that would do nothing."""
    others = ", ".join(map(on_the_command_line, takes))
    for name in given:
        require(
            name in takes,
            f"{on_the_command_line(name)}: means nothing for {verb}, which takes {others}",
        )


def check_options(counts: Mapping[str, int], seconds: Mapping[str, float] | None = None) -> None:
    """Positive ones, refused by the names that they have on the command line."""
    for option, count in counts.items():
        require_whole(on_the_command_line(option), count, 1)
    for option, time in (seconds or {}).items():
        require_number(f"--{option}", time)
        require(time > 0, f"--{option} must be positive, got {time}")
