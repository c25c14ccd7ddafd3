"""Cells of evaluations: what models are worth, question by question."""

from __future__ import annotations

import re
import statistics
from typing import Any

import numpy as np

from tools.recompute.differences import told
from tools.recompute.lines import DRAWS, Lines
from tools.recompute.taught import taught_best

FEW = 8  # pieces of a document: of fewer, documents are drawn from together
SIGNED = re.compile(r"(-?\d+\.\d+) \[(-?\d+\.\d+), (-?\d+\.\d+)\]")
TAUGHT = re.compile(r"(.+): (.+) (before|after)")  # an evaluation of models that were taught


def asked(lines: Lines, heading: re.Match[str], row: str, family: str, text: str) -> str | None:
    """A cell of an evaluation; None: it is no such cell."""
    name, budget, column, way, beside = heading.groups()
    cell = SIGNED.fullmatch(text)
    kept = _kept(lines, name, float(budget), family, row)
    if cell is None or not kept:
        return None
    shown = tuple(map(float, cell.groups()))
    if column != kept[0]["key"]:  # a column of which only the seeds are known
        seeds = [one["row"][column] for one in kept if one["row"].get(column) is not None]
        wanted = statistics.fmean(seeds), min(seeds), max(seeds)
        same = all(abs(a - b) < 0.00051 for a, b in zip(shown, wanted, strict=True))
        return "" if same else " ".join(f"{number:.4f}" for number in wanted)
    if way is None:
        return told(shown, *_bootstrap(lines, kept), 0.001)
    value, draws = _bootstrap(lines, kept, _kept(lines, name, float(budget), beside, row), way)
    return told(shown, value, draws, 0.001)


def _kept(lines: Lines, name: str, budget: float, family: str, row: str) -> list[dict[str, Any]]:
    """What the models of a family were worth in a row, piece by piece, a seed each."""
    if of := TAUGHT.fullmatch(name):  # of models that were taught something
        taught = taught_best(lines, of[1], f"{budget:g}", family)
        answers = [line["asked"][of[3]][of[2]] for line in taught if "asked" in line]
    else:
        runs = lines.seeds(family, budget)
        mine = [line for line in lines.asked if line["run"] in runs and line["evaluation"] == name]
        answers = [line["rows"] for line in mine]
    return [
        kept
        for rows in answers
        for kept in rows
        if " ".join(text for text in kept["row"].values() if isinstance(text, str)) == row
    ]


def _bootstrap(
    lines: Lines, kept: list[Any], than: list[Any] | None = None, way: str | None = None
) -> tuple[float, np.ndarray]:
    """The sum of values over that of sizes, and the same of pieces and seeds drawn again."""
    sides = [kept] if than is None else [kept, than]
    counts = _pieces_drawn(lines, kept[0])  # [DRAWS, pieces]; the same for all models
    values, draws = [], []
    for side in sides:
        ratios, again = [], []
        for one in side:
            v = np.array(one["values"], dtype=float)
            s = np.ones(len(v)) if one["sizes"] is None else np.array(one["sizes"], dtype=float)
            ratios.append(v.sum() / s.sum())
            again.append((counts @ v) / (counts @ s))
        chosen = lines.random.integers(len(side), size=(DRAWS, len(side)))
        values.append(statistics.fmean(ratios))
        draws.append(np.take_along_axis(np.array(again).T, chosen, axis=1).mean(axis=1))
    if than is None:
        return values[0], draws[0]
    if way == "ratio":
        return values[0] / values[1], draws[0] / draws[1]
    return values[0] - values[1], draws[0] - draws[1]


def _pieces_drawn(lines: Lines, one: dict[str, Any]) -> np.ndarray:
    """How often each piece is drawn, within its document where that has enough of them."""
    key = (str(one["strata"]), str(len(one["values"])))
    if key not in lines.weights:
        lines.weights[key] = _drawn_anew(lines, one)
    return lines.weights[key]


def _drawn_anew(lines: Lines, one: dict[str, Any]) -> np.ndarray:
    count = len(one["values"])
    documents = np.array(one["strata"] if one["strata"] is not None else [0] * count)
    for document in set(documents.tolist()):
        if (documents == document).sum() < FEW:
            documents[documents == document] = -1
    drawn = np.zeros((DRAWS, count))
    for document in set(documents.tolist()):
        own = np.flatnonzero(documents == document)
        drawn[:, own] = lines.random.multinomial(len(own), [1 / len(own)] * len(own), size=DRAWS)
    return drawn
