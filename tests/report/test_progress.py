"""A training says on the terminal how it goes, in a bar or line by line."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from blt.report.progress import _draws, describe, training_bar
from reports import REPORT


def test_loss_speed_patches_share_of_peak_memory_and_time_left_are_shown() -> None:
    shown = "2.345 bits/byte · 3:05 left · 18.5 kB/s · 4.51 bytes/patch · 48% of peak · 1.5 GB"
    assert describe(REPORT) == shown
    assert "held out 2.500" in describe(replace(REPORT, heldout_bits_per_byte=2.5))
    ended = replace(REPORT, progress=1.0, patch_size=None, mfu=None)
    assert describe(ended) == "2.345 bits/byte · 18.5 kB/s · 1.5 GB"
    again = replace(ended, bytes_per_second=0.0, bits_per_byte=math.nan)
    again = replace(again, heldout_bits_per_byte=2.5, skipped=1, ended_by="bytes")
    way = "--change train.bytes=... would raise what ended it"
    assert describe(again) == f"had ended before; {way} · held out 2.500"


def test_a_narrow_terminal_shows_how_far_a_training_is_and_the_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with training_bar(console, "a-long-name-of-a-recipe") as show:
        show(REPORT)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("25%", "2.345 bits/byte", "3:05 left"):
        assert part in text


def test_what_comes_before_the_first_step_has_a_bar_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blt.report.progress.LINE_EVERY", 0.0)
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
        with training_bar(console, "entropy") as show:
            show.prepare("finding θ", 0.5)
            show(REPORT)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        for part in ("finding θ", "50%", "before the first step", "25%"):
            assert part in text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
    with training_bar(console, "entropy") as show:
        show(REPORT)
        show(replace(REPORT, progress=1.0))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("entropy", "100%", "2.345 bits/byte", "18.5 kB/s"):
        assert part in text
    assert ("\x1b[" in text) == terminal


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_bars_where_rich_can_draw_them_and_lines_where_not(
    monkeypatch: pytest.MonkeyPatch, widgets: bool
) -> None:
    monkeypatch.setattr("blt.report.progress.find_spec", lambda name: object() if widgets else None)
    console = Console(file=io.StringIO(), width=100)
    console.is_jupyter = True
    assert _draws(console) is widgets
    console.is_jupyter = False
    assert not _draws(console)
