"""Compare runs of a study with each other on the same pieces of text, chosen by its search or not.

    python -m tools.paired results/tables-or-patches \\
        counts-patches-of-6-gated-tables-96-wide-0-84-of-the-flops-6e13 flat-tables-6e13-size5

A run is told by what its name in scores.jsonl begins with; its seeds are compared together, so all
that begin so must be of one size and rate. Bits per byte of each kind of text, then how many more
the others have than the first, in per cent. In brackets: the middle 95 % of a bootstrap over seeds
and pieces, the pieces being the same for all. Shares no code with blt's own tables, as
tools.recompute does not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blt.errors import UserError, nearest, require
from blt.study.markdown import table_head, table_row
from tools.asked import bare, mistakes_end
from tools.recompute.lines import Lines


def seeds(lines: Lines, begins: str) -> list[str]:
    """Names of the scored runs that begin so, a seed each.

    Raises:
        UserError: none does, or runs that differ by more than their seed.
    """
    names = sorted(name for name in lines.scores if name.startswith(begins))
    alike = sorted({name.rpartition("-s")[0] for name in names})
    known = sorted({name.rpartition("-s")[0] for name in lines.scores})
    require(bool(names), f"no scored run begins with {begins!r}; {nearest(begins, known)}")
    require(len(alike) == 1, f"{begins!r} begins several: {', '.join(alike)}; tell one of them")
    return names


def tables(lines: Lines, runs: Sequence[Sequence[str]]) -> str:
    """Bits of each run, and how many more those behind the first have."""
    kinds = [*lines.texts]
    bits = [table_head("run", "seeds", *kinds)]
    more = [table_head("more than the first, per cent", *kinds)]
    first: dict[str, tuple[float, np.ndarray]] = {}
    for names in runs:
        cells, shares = [], []
        for kind in kinds:
            texts = [*lines.texts[kind]]
            value, draws = lines.value(names, kind, texts), lines.draws(names, kind, texts)
            cells.append(_cell(value, draws, ".3f"))
            of, by = first.setdefault(kind, (value, draws))
            shares.append(_cell(100 * (value / of - 1), 100 * (draws / by - 1), "+.1f"))
        name = names[0].rpartition("-s")[0]
        bits.append(table_row(name, str(len(names)), *cells))
        more.append(table_row(name, *shares))
    del more[1]  # the first beside itself
    return "\n".join([*bits, "", *more])


def _cell(value: float, draws: np.ndarray, form: str) -> str:
    low, high = np.percentile(draws, (2.5, 97.5))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def compare(given: argparse.Namespace) -> str:
    """The tables that are asked for.

    Raises:
        UserError: no study's folder, or as of :func:`seeds`.
    """
    for name in ("results.jsonl", "scores.jsonl", "heldout.json"):
        if not (given.folder / name).is_file():
            raise UserError(f"{given.folder}: no {name}; name a study's folder")
    lines = Lines(given.folder)
    return tables(lines, [seeds(lines, begins) for begins in given.runs])


def main(words: Sequence[str] | None = None) -> None:
    asked = bare("tools.paired", __doc__)
    asked.add_argument("folder", type=Path, help="of a study's lines")
    asked.add_argument("runs", nargs="+", metavar="RUN", help="what its name begins with")
    with mistakes_end():
        print(compare(asked.parse_args(words)))


if __name__ == "__main__":
    main()
