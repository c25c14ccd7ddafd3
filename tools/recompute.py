"""Compute the cells of a study's table.md again, from its lines alone.

    python tools/recompute.py results/tables-or-patches

Shares no code with blt. Reads results.jsonl, scores.jsonl, evals.jsonl, characters.jsonl,
costs.jsonl and heldout.json; finds the best size and rate of each family by itself; resamples with
a generator of its own. Exit status 1 and a line for each cell that differs: a value by more than
its last digit, the end of an interval by more than what two bootstraps differ by. Tables of which
no cell was computed are named.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 1000
CELL = re.compile(
    r"\**(\d+\.\d+) \[(\d+\.\d+), (\d+\.\d+)\]\**(?: \((?P<seeds>\d+) of \d+ seeds\))?"
)
TAUGHT = re.compile(r"(.+) at (\S+) FLOPs: (steps until|each kind)")
ASKED_TAUGHT = re.compile(r"(.+): (.+) (before|after)")
ASKED = re.compile(r"(.+) at (\S+) FLOPs: (\w+)(?:, (ratio|difference) to (.+))?")
WHOLE = 3  # sizes that a search tries at least
FEW = 8  # pieces of a document: of fewer, documents are drawn from together
SIGNED = re.compile(r"(-?\d+\.\d+) \[(-?\d+\.\d+), (-?\d+\.\d+)\]")
MORE = re.compile(r"([+-]\d+\.\d+) \[([+-]\d+\.\d+), ([+-]\d+\.\d+)\]")


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


def tables(markdown: str) -> list[tuple[str, list[list[str]]]]:
    """Headings, and the rows of the table behind each."""
    found = []
    for section in markdown.split("\n## ")[1:]:
        rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
        found.append((section.splitlines()[0], [row for row in rows if set(row[0]) - set("-|")]))
    return found


def differs(shown: tuple[float, ...], value: float, draws: np.ndarray, digit: float) -> bool:
    """Few seeds make few different draws, so ends are compared with a range of percentiles."""
    outer, inner = np.percentile(draws, (1, 99)), np.percentile(draws, (5, 95))
    slack = digit + 0.1 * (outer[1] - outer[0])
    return not (
        abs(shown[0] - value) <= 0.51 * digit
        and outer[0] - slack <= shown[1] <= inner[0] + slack
        and inner[1] - slack <= shown[2] <= outer[1] + slack
    )


def main(folder: Path) -> int:
    lines, wrong, right, unread = Lines(folder), 0, 0, []
    for heading, (head, *rows) in tables((folder / "table.md").read_text()):
        before = right + wrong
        if heading.startswith("More bits"):
            lines.compared = {(row[0], float(row[1])) for row in rows}
        for row in rows:
            for column, text in zip(head[1:], row[1:], strict=False):
                found = recomputed(lines, heading, row, column, text)
                if found is None:
                    continue
                right += not found
                wrong += bool(found)
                if found:
                    print(f"{heading}: {row[0]}, {column}: {text}; recomputed: {found}")
        unread += [heading] * (right + wrong == before)
    if unread:
        print(f"not recomputed: {'; '.join(unread)}")
    print(f"{right} cells recomputed, {wrong} differ")
    return int(wrong > 0 or right == 0)


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


def found_by_search(lines: Lines, row: list[str], column: str) -> str | None:
    """A cell of what the search found."""
    tried, best = lines.searched(row[0], float(row[1])), lines.best(row[0], float(row[1]))
    sizes = sorted({run["size"] for run in tried})
    shown = {
        "sizes tried": rf"{sizes[0]} to {sizes[-1]} of \d+",
        "best size": str(best["size"]),
        "best rate": f"{best['lr']:g}",
        "validation bits": f"{best['validation_bits']:.3f}",
        "parameters": f"{best['parameters']:,}",
        "bytes read": f"{best['bytes_seen']:,}",
    }
    return shown.get(column)


def cost(lines: Lines, row: list[str], column: str) -> str | None:
    """A cell of the costs."""
    run = lines.best(row[0], float(row[1]))
    found = lines.costs[run["name"]]
    per_byte, seconds = found["flops_per_byte"], found["seconds_per_megabyte"]
    shown = {
        "MFLOP per byte": f"{per_byte / 1e6:.3f}",
        "executed": f"{found['executed_flops_per_byte'] / per_byte:.2f}×",
        "patcher's training": f"{100 * run['patcher_training_flops'] / run['budget']:.0f}%",
        "tables, MB": f"{found['table_bytes'] / 1e6:.0f}",
        "traffic there, kB per byte": f"{found['table_traffic_per_byte'] / 1e3:.1f}",
        "seconds per MB": f"{seconds:.1f}",
        "seconds in all": f"{seconds * run['bytes_seen'] / 1e6:.0f}",
    }
    return shown.get(column)


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
    rates = {}
    for line in own:
        if line["part"] == "search":
            look = reached(line["looks"], line["settings"]["goal"], None)
            every = [statistics.fmean(look["right"].values()) for look in line["looks"]]
            rates[line["lr"]] = (look["step"] if look else float("inf"), -statistics.fmean(every))
    best = min(rates, key=lambda rate: rates[rate]) if rates else None
    return [line for line in own if line["part"] == "test" and line["lr"] == best]


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
        return _differs(shown, *_bootstrap(lines, kept))
    value, draws = _bootstrap(lines, kept, _kept(lines, name, float(budget), beside, row), way)
    return _differs(shown, value, draws)


def _kept(lines: Lines, name: str, budget: float, family: str, row: str) -> list[dict[str, Any]]:
    """What the models of a family were worth in a row, piece by piece, a seed each."""
    if of := ASKED_TAUGHT.fullmatch(name):  # of models that were taught something
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


def _differs(shown: tuple[float, ...], value: float, draws: np.ndarray) -> str:
    return _said(value, draws) if differs(shown, value, draws, 0.001) else ""


def recomputed(lines: Lines, heading: str, row: list[str], column: str, text: str) -> str | None:
    """What a cell should be where it differs; empty where it does not; None: it is no such cell."""
    if heading.startswith("Bits per byte: ") and (cell := CELL.fullmatch(text)):
        kind = heading.removeprefix("Bits per byte: ").split(",")[0]
        names, texts = lines.seeds(row[0], float(column.split()[0])), [*lines.texts[kind]]
    elif heading.startswith("Bits per byte at ") and (cell := CELL.fullmatch(text)):
        budget, kind = re.match(r"Bits per byte at (\S+) FLOPs: (.+), each", heading).groups()  # type: ignore[union-attr]
        names, texts = lines.seeds(column, float(budget)), [row[0]]
    elif heading.startswith("More bits") and (cell := MORE.fullmatch(text)):
        return _more(lines, row, column, tuple(map(float, cell.groups())))
    elif heading in ("What the search found", "Costs"):
        cell_of = found_by_search if heading.startswith("What") else cost
        wanted = cell_of(lines, row, column)
        return None if wanted is None else wanted * (re.fullmatch(wanted, text) is None)
    elif lines.taught and (questions := TAUGHT.match(heading)):
        wanted = taught(lines, questions, row, column)
        return None if wanted is None else wanted * (wanted != text)
    elif (lines.asked or lines.taught) and (of := ASKED.fullmatch(heading)):
        return asked(lines, of, row[0], column, text)
    else:
        return None
    if cell["seeds"] not in (None, str(len(names))):
        return f"{len(names)} seeds"
    value, draws = lines.value(names, kind, texts), lines.draws(names, kind, texts)
    return _differs(tuple(map(float, cell.groups()[:3])), value, draws)


def _more(lines: Lines, row: list[str], kind: str, shown: tuple[float, ...]) -> str:
    """Per cent more than the best family at the same budget."""
    budget, texts = float(row[1]), [*lines.texts[kind]]
    families = dict.fromkeys(run["family"] for run in lines.runs if run["budget"] == budget)
    names = {f: lines.seeds(f, budget) for f in families if lines.belongs(f, budget)}
    values = {f: lines.value(of, kind, texts) for f, of in names.items() if of}
    best = min(values, key=lambda family: values[family])
    more = 100 * (values[row[0]] / values[best] - 1)
    pair = [lines.draws(names[family], kind, texts) for family in (row[0], best)]
    draws = 100 * (pair[0] / pair[1] - 1)
    return _said(more, draws) if differs(shown, more, draws, 0.1) else ""


def _said(value: float, draws: np.ndarray) -> str:
    low, high = np.percentile(draws, (2.5, 97.5))
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
