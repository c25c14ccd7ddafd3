"""Cells of fine-tunings on questions."""

from __future__ import annotations

import re
import statistics
from typing import Any

from tools.recompute.lines import Lines


def reached(looks: list[dict[str, Any]], goal: float, kind: str | None) -> dict[str, Any] | None:
    """The first look with enough right answers, of a kind or in the mean of all."""
    for look in looks:
        if (
            statistics.fmean(look["right"].values()) if kind is None else look["right"][kind]
        ) >= goal:
            return look
    return None


def taught(lines: Lines, heading: re.Match[str], row: list[str], column: str) -> str | None:
    """A cell about questions, as it should be; None: it has no number of these."""
    overall = heading[3] == "steps until"
    if overall and column in ("rate", "seeds", "right in the end, %"):
        return _taught_of(lines, heading, row[0], column)
    shown = {"steps": ("step", 1, "g"), "MB": ("bytes", 1e6, ".2f"), "FLOPs": ("flops", 1, ".2e")}
    if overall and column not in shown:
        return None
    key, unit, form = shown[column] if overall else shown["steps"]
    who, kind = (row[0], None) if overall else (column, row[0])
    tests = taught_best(lines, heading[1], heading[2], who)
    found = [reached(line["looks"], line["settings"]["goal"], kind) for line in tests]
    values = sorted(look[key] / unit if look else float("inf") for look in found)
    if values[0] == float("inf"):
        last = [line["looks"][-1]["right"] for line in tests]
        ends = [statistics.fmean(r.values()) if kind is None else r[kind] for r in last]
        return f"never ({100 * statistics.fmean(ends):.0f} %)"
    three = statistics.median(values), values[0], values[-1]
    return "{} [{}, {}]".format(*("never" if v == float("inf") else f"{v:{form}}" for v in three))


def _taught_of(lines: Lines, heading: re.Match[str], who: str, column: str) -> str:
    """What is said of the best rate of all, and of the end."""
    tests = taught_best(lines, heading[1], heading[2], who)
    if column == "seeds":
        return str(len(tests))
    if column == "rate":
        mine = [x for x in lines.taught if (x["characters"], x["part"]) == (heading[1], "search")]
        tried, lr = sorted({x["lr"] for x in mine}), tests[0]["lr"]
        return f"{lr:g}{'*' * (len(tried) > 1 and lr in (tried[0], tried[-1]))}"
    ends = [100 * statistics.fmean(x["looks"][-1]["right"].values()) for x in tests]
    return f"{statistics.median(ends):.0f} [{min(ends):.0f}, {max(ends):.0f}]"


def taught_best(lines: Lines, name: str, budget: str, who: str) -> list[dict[str, Any]]:
    """Lines of all seeds of a family, at the rate that was best with other words."""
    split = re.fullmatch(r"(.+), (\S+) % split", who)
    family = split[1] if split else who
    models = lines.chosen(family, float(budget))
    own = [
        line
        for line in lines.taught
        if line["run"] in models
        and (line["characters"], f"{line['budget']:g}") == (name, budget)
        and line["family"] == family
        and f"{100 * line['split']:g}" == (split[2] if split else "0")
    ]
    rates, search = {}, [line for line in own if line["part"] == "search"]
    most = max((len(line["looks"]) for line in search), default=0)
    for line in search:
        look = reached(line["looks"], line["settings"]["goal"], None)
        every = [statistics.fmean(look["right"].values()) for look in line["looks"]]
        every += every[-1:] * (most - len(every))  # it ended as all was right
        rates[line["lr"]] = (look["step"] if look else float("inf"), -statistics.fmean(every))
    best = min(rates, key=lambda rate: rates[rate]) if rates else None
    return [line for line in own if line["part"] == "test" and line["lr"] == best]
