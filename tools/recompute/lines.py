"""The lines of a study, what its search chose, and bits per byte of it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 1000
WHOLE = 3  # sizes that a search tries at least


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Lines:
    """The lines of one study."""

    def __init__(self, folder: Path) -> None:
        self.runs = lines_of(folder / "results.jsonl")
        self.scores = {line["name"]: line["bits"] for line in lines_of(folder / "scores.jsonl")}
        taught = folder / "characters.jsonl"
        self.taught = lines_of(taught) if taught.is_file() else []
        asked, costs = folder / "evals.jsonl", folder / "costs.jsonl"
        self.asked = lines_of(asked) if asked.is_file() else []
        self.costs = {x["name"]: x for x in lines_of(costs)} if costs.is_file() else {}
        self.texts = json.loads((folder / "heldout.json").read_text())
        self.random = np.random.default_rng(12345)
        self.weights: dict[tuple[str, str], np.ndarray] = {}
        # By budget, those with rows: a run may be scored whose family is still searched for.
        self.compared: set[tuple[str, float]] = set()

    def searched(self, family: str, budget: float) -> list[dict[str, Any]]:
        """All that was tried with the first seed."""
        mine = [run for run in self.runs if (run["family"], run["budget"]) == (family, budget)]
        return [run for run in mine if run["seed"] == 0]

    def belongs(self, family: str, budget: float) -> bool:
        """Is a family compared? One that was searched whole must be, whoever left out its row."""
        sizes = {run["size"] for run in self.searched(family, budget)}
        return (family, budget) in self.compared or len(sizes) >= WHOLE

    def best(self, family: str, budget: float) -> dict[str, Any]:
        ended = [x for x in self.searched(family, budget) if x["validation_bits"] is not None]
        return min(ended, key=lambda run: run["validation_bits"])

    def chosen(self, family: str, budget: float) -> list[str]:
        """Names of a family's runs with its best size and rate; none: there is no such family."""
        if not self.searched(family, budget):
            return []
        best = self.best(family, budget)
        same = ("family", "budget", "size", "lr")
        return [x["name"] for x in self.runs if all(x[key] == best[key] for key in same)]

    def seeds(self, family: str, budget: float) -> list[str]:
        """Those that were scored."""
        return [name for name in self.chosen(family, budget) if name in self.scores]

    def value(self, names: list[str], kind: str, texts: list[str]) -> float:
        """Bits per byte: of a text all its bits over all its bytes, then means."""
        per_text = []
        for text in texts:
            size = sum(self.texts[kind][text]["pieces"])
            per_text.append(statistics.fmean(sum(self.scores[n][kind][text]) / size for n in names))
        return statistics.fmean(per_text)

    def draws(self, names: list[str], kind: str, texts: list[str]) -> np.ndarray:
        """The same of resampled pieces and seeds, the same pieces whoever asks  # [DRAWS]."""
        out = np.zeros((DRAWS, len(names)))
        for text in texts:
            sizes = np.array(self.texts[kind][text]["pieces"], dtype=float)
            if (kind, text) not in self.weights:
                drawn = self.random.integers(len(sizes), size=(DRAWS, len(sizes)))
                counts = [np.bincount(row, minlength=len(sizes)) for row in drawn]
                self.weights[kind, text] = np.array(counts)
            w = self.weights[kind, text]
            for column, name in enumerate(names):
                out[:, column] += (w @ np.array(self.scores[name][kind][text])) / (w @ sizes)
        chosen = self.random.integers(len(names), size=(DRAWS, len(names)))
        return np.take_along_axis(out, chosen, axis=1).mean(axis=1) / len(texts)
