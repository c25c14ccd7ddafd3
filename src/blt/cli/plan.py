"""``blt plan``: what a training will take, in tables."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from blt.errors import UserError
from blt.report.console import Console

if TYPE_CHECKING:
    from blt.plan import Hardware, Plan

UNITS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def plan(
    recipe: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    hardware: str = "laptop",
    mfu: float | None = None,
    price: float | None = None,
    json: bool = False,
) -> None:
    """Tell what training a recipe takes: parameters, FLOPs, memory, time, cost.

    Reads no text, and trains nothing.

    Args:
        recipe: TOML file of one experiment.
        overrides: Changes to the recipe, such as data.context_bytes=8192.
        hardware: Devices, one process each, such as 8xH100.
        mfu: Share of the devices' peak that training reaches. Left out: what was measured on such
            devices; where nothing was, 0.4.
        price: Dollars per device and hour. Left out: about what clouds ask.
        json: Print one JSON object.
    """
    from blt.plan import find_hardware, make_plan
    from blt.train.recipe import read_recipe

    if mfu is not None and not 0 < mfu <= 1:
        raise UserError(f"--mfu must be above 0 and at most 1, got {mfu}")
    if price is not None and not (price >= 0 and math.isfinite(price)):
        raise UserError(f"--price must be a number of dollars, 0 or more, got {price}")
    devices = find_hardware(hardware)
    made = make_plan(read_recipe(recipe, overrides), devices, mfu, price)
    (print_json if json else print_plan)(made, devices)


def print_plan(plan: Plan, hardware: Hardware) -> None:
    """Four small tables: parameters, FLOPs, memory, time."""
    console = Console()
    on = f"{hardware.count} x {hardware.name}"
    rows = [(name, amount(count)) for name, count in plan.parameters.items()]
    _table(console, "parameters", [*rows, ("all", amount(sum(plan.parameters.values())))])
    with_entropies = plan.inference_flops + plan.entropy_flops
    _table(
        console,
        "FLOPs per byte",
        [
            ("inference", amount(plan.inference_flops)),
            ("with the entropy model", amount(with_entropies)),
            ("training", amount(plan.training_flops)),
            ("with the entropy model", amount(plan.training_flops + plan.entropy_flops)),
        ],
    )
    memory = plan.memory
    verdict = Text("fits") if plan.fits else Text("does not fit", "red")
    _table(
        console,
        f"memory of each device, {on}",
        [
            ("weights", _bytes(memory.weights)),
            ("gradients", _bytes(memory.gradients)),
            ("optimiser", _bytes(memory.optimizer)),
            ("activations, gathered weights", _bytes(memory.working)),
            ("all tensors at the peak", _bytes(memory.peak)),
            *([("the token model that teaches", _bytes(plan.teacher))] if plan.teacher else []),
            ("needed", Text(f"{_bytes(plan.needed)} of {_bytes(hardware.memory)}: ") + verdict),
        ],
    )
    _table(
        console,
        f"time, if {plan.mfu:.1%} of the peak is reached",
        [
            ("bytes in a step", f"{plan.batch_bytes:,}"),
            ("steps", "as time allows" if plan.steps is None else f"{plan.steps:,}"),
            ("ended by", f"train.{plan.ended_by}"),
            ("text", _bytes(plan.total_bytes)),
            ("speed", f"{_bytes(plan.bytes_per_second)}/s"),
            ("wall clock", duration(plan.seconds)),
            ("device hours", f"{hardware.count * plan.seconds / 3600:,.1f}"),
            ("cost", f"${plan.cost:,.0f}"),
        ],
    )
    console.print(f"share of the peak: {plan.mfu_from}", highlight=False, soft_wrap=True)
    how = f"compiled: {_yes(plan.compiled)}, recomputing: {_yes(plan.recomputes)}"
    console.print(how, highlight=False, soft_wrap=True)


def print_json(plan: Plan, hardware: Hardware) -> None:
    """One JSON object; bytes, FLOPs, seconds, dollars."""
    print(json.dumps({"hardware": asdict(hardware), **asdict(plan)}))


def amount(value: float) -> str:
    """Three digits and a unit."""
    for unit, size in UNITS:
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _bytes(value: float) -> str:
    return f"{amount(value)}B"


def _table(console: Console, title: str, rows: list[tuple[str, str | Text]]) -> None:
    table = Table(title=title, show_header=False, title_justify="left", min_width=44)
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
