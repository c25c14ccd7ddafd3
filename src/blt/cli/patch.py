"""``blt patch``: text in patches, how surprising each was, and the sums."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from tyro.conf import Positional

from blt.cli.device import Device, chosen
from blt.cli.output import say
from blt.errors import UserError
from blt.report.console import Console
from blt.report.terminal import legend, print_patches, render_patches, summary_line

if TYPE_CHECKING:
    from blt.patching import Cut

COUNTS_TARGET = 4.5  # bytes per patch, as in recipes
TABLE_ORDER = 2  # where none is named
OTHERWISE = " (the BLT in the package cuts by a table instead: --model pretrained)"
MOST_ROWS = 40  # patches listed one by one; --json has them all


@dataclass(frozen=True)
class Rule:
    """Where patches start."""

    rule: str | None = None
    """entropy, entropy-monotonic, entropy-combined, space, static, byte, lookup, bpe or learned."""
    threshold: float | None = None
    """Entropy rules: start a patch where the next byte's entropy is above this (nats)."""
    threshold_add: float | None = None
    """entropy-combined: the entropy must also rise by more than this (nats)."""
    target: float | None = None
    """Choose the threshold that gives patches of so many bytes on average in this text."""
    newline_reset: bool = False
    """The entropy model forgets everything after each newline."""
    stride: int | None = None
    """static: bytes per patch."""
    max_patch_length: int | None = None
    """Split longer patches into runs of this many bytes."""

    def parameters(self) -> dict[str, Any]:
        """Fields of a :class:`blt.PatchingConfig`; None: as they are."""
        return {
            "threshold": self.threshold,
            "threshold_add": self.threshold_add,
            "stride": self.stride,
            "max_patch_length": self.max_patch_length,
            "newline_reset": self.newline_reset or None,
        }


@dataclass(frozen=True)
class Needs:
    """What some rules need."""

    model: Path | None = None
    """Folder of a BLT or byte model to cut with, instead of the entropy model inside the package;
    "pretrained" cuts as the BLT inside the package does."""
    tokenizer: Path | None = None
    """bpe: a tokenizer.json."""
    table: Path | None = None
    """lookup: a table written by --make-table."""
    make_table: Path | None = None
    """Write a lookup table learned from this text to this file; cut nothing."""
    counts: bool = False
    """--make-table: learn it from plain counts of bytes, without a model; patches of this text then
    have --target bytes (4.5 where it is left out)."""
    fair_scripts: bool = False
    """--counts: patches carry the same information in every script, and end with characters."""
    order: int | None = None
    """--make-table: how many of the last bytes the table looks at, 1 to 3. Left out: 2."""

    @property
    def context(self) -> int:
        """Bytes that a table looks at."""
        return TABLE_ORDER if self.order is None else self.order


def patch(
    text: Positional[str | None] = None,
    /,
    *,
    file: Path | None = None,
    json: bool = False,
    device: Device = "auto",
    rule: Rule,
    model: Needs,
) -> None:
    """Cut text into patches, and show where and why.

    Args:
        text: Text to cut. Left out: --file, or what comes through a pipe.
        file: Cut the bytes of this file; any bytes will do.
        json: Print one JSON object: entropies in nats, patches as text and exactly in base64.
    """
    from blt.checkpoint.pretrained import patcher_of

    data = _read_input(text, file)
    if model.fair_scripts and not model.counts:
        raise UserError("--fair-scripts is for --make-table FILE --counts")
    if model.order is not None and model.make_table is None:
        raise UserError("--order is for --make-table FILE")
    if json and model.make_table is not None:
        raise UserError("--json: does nothing with --make-table; leave one of them out")
    if model.counts:
        say(_count_table(data, rule, model))
        return
    paths = {"model": model.model, "table": model.table, "tokenizer": model.tokenizer}
    patcher = patcher_of(rule.rule, rule.parameters(), **paths, device=chosen(device))
    if rule.target is not None:
        whole: Any = {"context_bytes": max(1, len(data)), "sample_bytes": None}
        patcher = patcher.calibrated([data], rule.target, **whole)
    if model.make_table is not None:
        say(patcher.write_table(data, model.make_table, model.context))
    elif json:
        print_json(patcher.cut(data))
    else:
        plain = rule.rule is None and not any(paths.values())
        print_cut(patcher.cut(data), OTHERWISE if plain else "")


def _count_table(data: bytes, rule: Rule, model: Needs) -> str:
    """Write a table made from counts; returns a line about it."""
    from blt.patching import PatchingConfig
    from blt.patching.calibration import learn_lookup_table
    from blt.patching.tables import write_lookup_table

    if model.make_table is None:
        raise UserError("--counts is for --make-table FILE")
    others = {
        "--model": model.model is not None,
        "--table": model.table is not None,
        "--tokenizer": model.tokenizer is not None,
        "--rule": rule.rule not in (None, "lookup"),
        "--threshold": rule.threshold is not None,
        "--threshold-add": rule.threshold_add is not None,
        "--stride": rule.stride is not None,
        "--newline-reset": rule.newline_reset,
    }
    for name in (name for name, given in others.items() if given):
        raise UserError(f"{name}: does nothing with --counts; leave one of them out")
    config = PatchingConfig(
        "lookup",
        lookup_order=model.context,
        fair_scripts=model.fair_scripts,
        max_patch_length=rule.max_patch_length,
    )
    target = COUNTS_TARGET if rule.target is None else rule.target
    whole: Any = {"context_bytes": max(1, len(data)), "sample_bytes": None}
    _, table = learn_lookup_table(None, [data], target, config, **whole)
    return write_lookup_table(model.make_table, table, len(data))


def _read_input(text: str | None, file: Path | None) -> bytes:
    """The bytes to cut, from the one place that was named."""
    if text is not None and file is not None:
        raise UserError("both a text and --file are given; choose one")
    if file is not None:
        return file.read_bytes()
    if text is not None:
        return os.fsencode(text)
    if sys.stdin.isatty():
        raise UserError('no text to cut; try: blt patch "some text", --file FILE, or a pipe')
    return sys.stdin.buffer.read()


def print_json(cut: Cut) -> None:
    """One JSON object on one line."""
    print(json.dumps(cut.to_json()))


def print_cut(cut: Cut, remark: str = "") -> None:
    """Print to a terminal with colours, or to a pipe with separators.

    Args:
        remark: on the rule.
    """
    console = Console()
    print_patches(console, cut.patches, cut.entropies, colour_by="entropy")
    if cut.entropies is not None:
        if console.color_system is not None:
            console.print(legend())
        _print_rows(console, cut, cut.entropies)
    if cut.probabilities is not None:
        _print_probabilities(console, cut, cut.probabilities)
    console.print(summary_line(cut.patches, cut.entropies), soft_wrap=True, highlight=False)
    console.print(f"rule: {cut.rule}{remark}", soft_wrap=True, highlight=False)


def _print_rows(console: Console, cut: Cut, entropies: list[float]) -> None:
    if not cut.lengths:
        return
    columns = [(f"{nats:.3f}", f"{nats / math.log(2):.2f}") for nats in entropies]
    _print_table(console, cut, ("nats", "bits"), columns)


def _print_probabilities(console: Console, cut: Cut, probabilities: list[float]) -> None:
    """How likely the router found it that each patch starts."""
    _print_table(console, cut, ("p",), [(f"{p:.3f}",) for p in probabilities])


def _print_table(
    console: Console, cut: Cut, names: Sequence[str], columns: Sequence[Sequence[str]]
) -> None:
    """A row for each patch, with what is known of its first byte."""
    table = Table("bytes", *names, "patch", box=None, pad_edge=False)
    rows = list(zip(cut.starts, cut.patches, strict=True))
    for start, patch in rows[:MOST_ROWS]:
        shown = render_patches([patch], colour=False)
        shown.plain = shown.plain.replace("\n", "")  # its mark ⏎ says it
        table.add_row(str(len(patch)), *columns[start], shown)
    console.print(table)
    if len(rows) > MOST_ROWS:
        console.print(f"… and {len(rows) - MOST_ROWS} more patches (--json lists all)")
