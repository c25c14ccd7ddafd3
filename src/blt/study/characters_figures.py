"""Curves of what models learned about characters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blt.report.pictures import save_picture
from blt.study.characters import looks_of
from blt.study.characters_report import Taught, asked_of, taught_of
from blt.study.config import short, slug
from blt.study.figures import legend, panels, style
from blt.study.finetune import Look
from blt.study.lines import Line

MEAN = "mean of all"


def characters_figures(lines: Sequence[Line], families: Sequence[str], folder: Path) -> list[Path]:
    """Share of right answers over steps: a panel for each kind, a line for each seed."""
    paths = []
    for name, budget in asked_of(lines):
        own = [line for line in lines if (line["characters"], line["budget"]) == (name, budget)]
        taught = taught_of(own, families)
        if taught:
            path = folder / f"{slug(name)}-{short(budget)}.png"
            _curves(taught, path)
            paths.append(path)
    return paths


def _curves(taught: Taught, path: Path) -> None:
    kinds: list[str | None] = [None, *looks_of(next(iter(taught.values()))[0])[0].right]
    figure, axes_of = panels(len(kinds))
    for axes, kind in zip(axes_of, kinds, strict=True):
        for index, (who, lines) in enumerate(taught.items()):
            for number, line in enumerate(lines):
                how = {**style(index), "label": who if number == 0 else None}
                _curve(axes, looks_of(line), kind, how)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("steps", fontsize=8)
        axes.set_ylabel("share of right answers", fontsize=8)
        axes.set_title(kind or MEAN, loc="left", fontsize=10)
    legend(figure, axes_of)
    save_picture(figure, path)


def _curve(axes: Any, looks: Sequence[Look], kind: str | None, how: dict[str, Any]) -> None:
    shares = [look.mean if kind is None else look.right[kind] for look in looks]
    axes.plot([look.step for look in looks], shares, linewidth=1.0, **how)
