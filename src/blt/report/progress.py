"""A training's progress on the terminal: a bar with time left, or now and then a line in a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column

from blt.report.console import Console
from blt.train.build import OnPrepare
from blt.train.loop import OnProgress, Report

LINE_EVERY = 15.0  # seconds, where there is no terminal to draw a bar on
NAME_WIDTH = 18


class TrainingView:
    """What a training is shown with: call it with reports, and ``prepare`` before the first."""

    def __init__(self, show: OnProgress, prepare: OnPrepare) -> None:
        self.show, self.prepare = show, prepare

    def __call__(self, report: Report) -> None:
        self.show(report)


@contextmanager
def training_bar(console: Console | None, name: str) -> Iterator[TrainingView]:
    """What a training is shown with inside a ``with`` block: bars in a terminal or notebook.

    ``train_recipe(recipe, folder, on_progress=view, on_prepare=view.prepare)`` draws it, and
    ``fit(..., on_progress=view)``. Where bars cannot be drawn there is now and then a line: in a
    pipe, and in a notebook without ``ipywidgets``.

    Args:
        console: where to; None: standard output.
        name: of the training.
    """
    console = Console() if console is None else console
    if not _draws(console):
        yield TrainingView(_lines(console, name), _prepare_lines(console, name))
        return
    whole_or_cut = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # a narrow terminal's end
    columns = (
        TextColumn(f"{{task.description:<{NAME_WIDTH}}}", "bold", markup=False),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}", markup=False, table_column=whole_or_cut),
    )
    with Progress(*columns, console=console, refresh_per_second=4, expand=True) as progress:
        task = progress.add_task(name, total=1.0, status="reading text")
        before: dict[str, TaskID] = {}  # tasks before the first step, each with a bar of its own

        def show(report: Report) -> None:
            progress.update(task, completed=report.progress, status=describe(report))

        def prepare(what: str, share: float) -> None:
            if what not in before:
                before[what] = progress.add_task(what, total=1.0, status="before the first step")
            progress.update(before[what], completed=share)

        yield TrainingView(show, prepare)


def _draws(console: Console) -> bool:
    """Rich draws bars in a notebook with ipywidgets alone."""
    in_notebook = console.is_jupyter and find_spec("ipywidgets") is not None
    return console.is_terminal or in_notebook


def describe(report: Report) -> str:
    """Loss, time left, speed, patch size, share of the machine's peak and memory."""
    heldout = report.heldout_bits_per_byte
    scored = [] if heldout is None else [f"held out {heldout:.3f}"]
    if report.progress == 1 and report.bytes_per_second == 0:  # not a step since it was opened
        raised = f"--change train.{report.ended_by}=... would raise what ended it"
        return " · ".join([f"had ended before; {raised}" if report.step else "no step", *scored])
    parts = [f"{report.bits_per_byte:.3f} bits/byte", *scored]
    if report.progress < 1:
        parts.append(f"{clock(report.seconds_left)} left")
    parts.append(f"{report.bytes_per_second / 1000:.1f} kB/s")
    if report.patch_size is not None:
        parts.append(f"{report.patch_size:.2f} bytes/patch")
    if report.mfu is not None:
        parts.append(f"{report.mfu:.0%} of peak")
    parts.append(decimal(report.memory))
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """Minutes and seconds, as 3:05."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def _lines(console: Console, name: str) -> OnProgress:
    last = float("-inf")

    def show(report: Report) -> None:
        nonlocal last
        if report.progress == 1 or time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            line = f"{name:<{NAME_WIDTH}} {report.progress:4.0%} · {describe(report)}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    return show


def _prepare_lines(console: Console, name: str) -> OnPrepare:
    last = time.monotonic()

    def show(what: str, share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            line = f"{name:<{NAME_WIDTH}} {what}, before the first step: {share:.0%}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    return show
