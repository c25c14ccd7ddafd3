"""Compute the cells of a study's table.md again, from its lines alone.

    python -m tools.recompute results/tables-or-patches

Shares no code with blt. Reads results.jsonl, scores.jsonl, evals.jsonl, characters.jsonl,
costs.jsonl and heldout.json; finds the best size and rate of each family by itself; resamples with
a generator of its own. Exit status 1 and a line for each cell that differs: a value by more than
its last digit, the end of an interval by more than what two bootstraps differ by. Tables of which
no cell was computed are named.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tools.recompute.asked import asked
from tools.recompute.differences import told
from tools.recompute.lines import Lines
from tools.recompute.search import cost, found_by_search
from tools.recompute.taught import taught

CELL = re.compile(
    r"\**(\d+\.\d+) \[(\d+\.\d+), (\d+\.\d+)\]\**(?: \((?P<seeds>\d+) of \d+ seeds\))?"
)
TAUGHT = re.compile(r"(.+) at (\S+) FLOPs: (steps until|each kind)")
ASKED = re.compile(r"(.+) at (\S+) FLOPs: (\w+)(?:, (ratio|difference) to (.+))?")
MORE = re.compile(r"([+-]\d+\.\d+) \[([+-]\d+\.\d+), ([+-]\d+\.\d+)\]")


def tables(markdown: str) -> list[tuple[str, list[list[str]]]]:
    """Headings, and the rows of the table behind each."""
    found = []
    for section in markdown.split("\n## ")[1:]:
        rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
        found.append((section.splitlines()[0], [row for row in rows if set(row[0]) - set("-|")]))
    return found


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
    return told(tuple(map(float, cell.groups()[:3])), value, draws, 0.001)


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
    return told(shown, more, draws, 0.1)


def _folder() -> Path:
    """The one that was named, with all that is read in any case."""
    parser = argparse.ArgumentParser("python -m tools.recompute", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="of a study's lines and its table.md")
    folder: Path = parser.parse_args().folder
    for name in ("table.md", "results.jsonl", "scores.jsonl", "heldout.json"):
        if not (folder / name).is_file():
            parser.error(f"{folder}: no {name}; name a study's folder")
    return folder


if __name__ == "__main__":
    sys.exit(main(_folder()))
