"""What a study found, in Markdown and as a table for other programs; no figures."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from blt.errors import UserError
from blt.files import durable
from blt.study.cells import Cell, Compared
from blt.study.characters_report import characters_sections, compared_lines
from blt.study.config import Family, Point, Study
from blt.study.evaluations_report import evaluation_sections
from blt.study.folder import CHARACTERS, EVALS, OVERLAP, StudyFolder, overrun
from blt.study.markdown import table_head, table_row
from blt.study.search import CLEARLY
from blt.train.recipe import Recipe

TABLE, RUNS_CSV = "table.md", "runs.csv"
INTERVALS = "In brackets: the middle 95 % of a bootstrap over seeds and pieces of text."


def write_tables(study: Study, folder: str | os.PathLike[str]) -> list[Path]:
    """``table.md`` and ``runs.csv`` of what has ended by now, into ``folder``.

    Raises:
        UserError: there are no results yet.
    """
    out = StudyFolder(folder)
    return tables_into(out, Compared.read(study, out))


def tables_into(out: StudyFolder, compared: Compared) -> list[Path]:
    """The same of what has been read.

    Raises:
        UserError: there are no results yet.
    """
    if not compared.lines:
        raise UserError(f"{out.path}: no run has ended yet; wait, or start the study")
    durable.write_text(out.path / RUNS_CSV, _csv(compared))
    if not compared.points:
        return [out.path / RUNS_CSV]
    durable.write_text(out.path / TABLE, "\n".join(_sections(compared, out)))
    return [out.path / RUNS_CSV, out.path / TABLE]


def _sections(compared: Compared, out: StudyFolder) -> Iterator[str]:
    """The text of ``table.md``."""
    yield "# Numbers\n"
    for kind in compared.heldout:
        count = len(compared.texts(kind))
        mean = "" if count == 1 else f", mean of {count} texts"
        yield f"## Bits per byte: {kind}{mean}\n\n{INTERVALS}\n"
        yield bits_table(compared, kind)
    yield from _differences(compared)
    yield from _languages(compared)
    runs = {key: [point.name for point in of] for key, of in compared.points.items()}
    yield from evaluation_sections(compared.study.evaluations, runs, out.lines(EVALS))
    families = [family.name for family in compared.study.families]
    taught = compared_lines(compared.search, out.lines(CHARACTERS))
    yield from characters_sections(taught, families)
    yield "## What the search found\n\n" + "\n".join(_search_rows(compared)) + "\n"
    yield "## Who was left out\n\n" + "\n".join(_rule_rows(compared)) + "\n"
    yield from _costs(compared)
    yield from _overruns(compared)
    yield "## What was scored\n\n" + "\n".join(_scored_rows(compared, out)) + "\n"


def bits_table(compared: Compared, kind: str) -> str:
    """A row for each family, a column for each budget; the best of a column is bold."""

    def cells(budget: float) -> dict[str, Cell]:
        there = [f.name for f in compared.families if (f.name, budget) in compared.points]
        return {name: compared.cell(name, budget, kind) for name in there}

    columns = {budget: cells(budget) for budget in compared.budgets}
    lines = [table_head("family", "tables", *(f"{budget:g} FLOPs" for budget in columns))]
    for family in compared.families:
        row = [
            _shown(of[family.name], of) + _fewer(compared, family, budget)
            if family.name in of
            else _missing(compared, family, budget)
            for budget, of in columns.items()
        ]
        points = [p for b in compared.budgets for p in compared.points.get((family.name, b), ())]
        less = "" if family.spends == 1 else f"; {family.spends:g} of the FLOPs"
        lines.append(table_row(family.name, tables_of(points) + less, *row))
    return "\n".join(lines) + "\n"


def tables_of(points: Sequence[Point]) -> str:
    """The n-gram tables of a family's runs, from their recipes; if they differ, at which budget."""
    found: dict[str, dict[str, None]] = {}
    for point in points:
        found.setdefault(_tables(point.recipe), {})[f"{point.budget:g}"] = None
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{tables} at {', '.join(at)} FLOPs" for tables, at in found.items())


def _tables(recipe: Recipe) -> str:
    config = recipe.model or recipe.byte_model or recipe.token_model
    assert config is not None
    sizes = config.hash_ngram_sizes
    if not sizes:
        return "none"
    unit = getattr(config, "hash_of", "bytes")
    rows = config.hash_rows * config.hash_functions * len(sizes)
    wide = "" if config.hash_dim is None else f" of {config.hash_dim}"
    return f"{rows:,} rows{wide}, n = {', '.join(map(str, sizes))} {unit}"


def _fewer(compared: Compared, family: Family, budget: float) -> str:
    """How many seeds there are, where there will be more."""
    study, seeds = compared.study, len(compared.points[family.name, budget])
    wanted = study.seeds[study.budgets.index(budget)]
    return "" if seeds == wanted else f" ({seeds} of {wanted} seeds)"


def _missing(compared: Compared, family: Family, budget: float) -> str:
    """Why there is no cell."""
    if budget < family.joins:
        return "joins later"
    if budget > family.leaves:
        return "not tried any more"
    return "not run" if family in compared.search.families(budget) else "left out"


def _shown(cell: Cell, column: dict[str, Cell]) -> str:
    best = min(column.values()).value == cell.value
    text = f"{cell.value:.3f} [{cell.low:.3f}, {cell.high:.3f}]"
    return f"**{text}**" if best else text


def _differences(compared: Compared) -> Iterator[str]:
    """Each family beside the best of each kind and budget, on the same pieces."""
    yield "## More bits than the best, in per cent\n"
    yield "Paired: both models on the same pieces. An interval above 0: clearly more.\n"
    lines = [table_head("family", "FLOPs", *compared.heldout)]
    for budget in compared.budgets:
        names = [f.name for f in compared.families if (f.name, budget) in compared.points]
        best = {
            kind: min(names, key=lambda name: compared.cell(name, budget, kind).value)
            for kind in compared.heldout
        }
        for name in names:
            row = [
                "best" if name == best[kind] else _percent(compared, name, best[kind], budget, kind)
                for kind in compared.heldout
            ]
            lines.append(table_row(name, f"{budget:g}", *row))
    yield "\n".join(lines) + "\n"


def _percent(compared: Compared, name: str, best: str, budget: float, kind: str) -> str:
    value, low, high = (100 * x for x in compared.more(name, best, budget, kind))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _languages(compared: Compared) -> Iterator[str]:
    """Kinds of many texts, one row each, at the largest budget that all families have run."""
    done = [budget for budget in compared.budgets if compared.search.is_done(budget)]
    budget = (done or compared.budgets)[-1]
    names = [f.name for f in compared.families if (f.name, budget) in compared.points]
    for kind in compared.heldout:
        texts = compared.texts(kind)
        if len(texts) == 1:
            continue
        lines = [table_head(kind, *names)]
        for text in texts:
            cells = {name: compared.cell(name, budget, kind, text) for name in names}
            lines.append(table_row(text, *(_shown(cells[name], cells) for name in names)))
        yield f"## Bits per byte at {budget:g} FLOPs: {kind}, each text\n"
        yield "\n".join(lines) + "\n"


def _search_rows(compared: Compared) -> Iterator[str]:
    search, head = compared.search, ("family", "FLOPs", "sizes tried", "best size", "best rate")
    yield "Validation bits: held-out text of the training sources, weighted as they are.\n"
    yield table_head(*head, "validation bits", "parameters", "bytes read")
    for budget in search.study.budgets:
        for family in search.families(budget):
            best = search.best(family, budget)
            if best is None or math.isinf(search.bits(best)):
                continue
            line, key = compared.by_name[best.name], (family.name, budget, 0)
            lines = compared.lines  # may know of more sizes than this search would try
            sizes = sorted(x["size"] for x in lines if (x["family"], x["budget"], x["seed"]) == key)
            tried = f"{sizes[0]} to {sizes[-1]} of {len(family.sizes)}"
            facts = f"{search.bits(best):.3f}", f"{line['parameters']:,}"
            row = (family.name, f"{budget:g}", tried, str(best.size), f"{best.lr:g}")
            yield table_row(*row, *facts, f"{line['bytes_seen']:,}")


def _rule_rows(compared: Compared) -> Iterator[str]:
    yield (
        "The rule: of each group the best family goes on to the next budget, and those whose "
        f"validation bits are not more than {CLEARLY:g} standard errors above its own. The error "
        "is that of a difference of two means, by the spread of seeds, pooled over families.\n"
    )
    yield table_head(
        "family", "after", "best of its group", "more validation bits", "standard error"
    )
    for out in compared.search.left_out:
        numbers = f"{out.more_bits:.4f}", f"{out.error:.4f}"
        yield table_row(out.family, f"{out.after:g}", out.best, *numbers)


def _costs(compared: Compared) -> Iterator[str]:
    """FLOPs counted and executed, tables, seconds."""
    if not compared.costs:
        return
    yield "## Costs\n"
    yield (
        "FLOPs of a byte of training, forward and backward: by the paper's formula, and as PyTorch "
        "counts them where its own operations do the work, attention in blocks of 128 queries; in "
        "C++, as on a CPU in float32, attention does less. The patcher's training is part of each "
        "budget, and of the seconds in all.\n"
    )
    lines = [
        table_head(
            *("family", "budget", "MFLOP per byte", "executed", "patcher's training"),
            *("tables, MB", "traffic there, kB per byte", "seconds per MB", "seconds in all"),
        )
    ]
    for (family, budget), points in compared.points.items():
        cost, seconds = compared.costs.get(points[0].name), compared.seconds(points[0])
        if cost is None:
            continue
        line = compared.by_name[points[0].name]
        numbers = (
            f"{cost['flops_per_byte'] / 1e6:.3f}",
            f"{cost['executed_flops_per_byte'] / cost['flops_per_byte']:.2f}×",
            f"{100 * line['patcher_training_flops'] / budget:.0f}%",
            f"{cost['table_bytes'] / 1e6:.0f}",
            f"{cost['table_traffic_per_byte'] / 1e3:.1f}",
            f"{cost['seconds_per_megabyte']:.1f}",
            f"{seconds:.0f}",
        )
        lines.append(table_row(family, f"{budget:g}", *numbers))
    yield "\n".join(lines) + "\n"


def _overruns(compared: Compared) -> Iterator[str]:
    lines = [
        table_row(line["name"], f"{times:.2f}")
        for line in compared.lines
        if (times := overrun(line)) is not None
    ]
    if lines:
        head = table_head("run", "times its budget of FLOPs")
        yield "## Runs that took more than their budget\n\n" + "\n".join((head, *lines)) + "\n"


def _scored_rows(compared: Compared, out: StudyFolder) -> Iterator[str]:
    shares = out.json(OVERLAP)
    yield table_head("kind", "text", "documents", "bytes scored", "of", "also in the training text")
    for kind, texts in compared.heldout.items():
        for name, of in texts.items():
            numbers = f"{of['documents']:,}", f"{of['bytes']:,}", f"{of['of_bytes']:,}"
            yield table_row(kind, name, *numbers, f"{100 * shares[kind][name]:.2f}%")


def _csv(compared: Compared) -> str:
    """A line for each run, those of searches too."""
    chosen = {point.name for points in compared.points.values() for point in points}
    plain = dict.fromkeys(
        key for line in compared.lines for key, value in line.items() if not isinstance(value, dict)
    )
    kinds: Sequence[str] = list(compared.heldout)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain, "compared", *(f"bits_per_byte_{kind}" for kind in kinds)])
    for line in compared.lines:
        scores = [_mean(compared, line["name"], kind) for kind in kinds]
        writer.writerow([*(line.get(k) for k in plain), line["name"] in chosen, *scores])
    return text.getvalue()


def _mean(compared: Compared, name: str, kind: str) -> float | None:
    """Bits per byte of one run, the mean over a kind's texts; None: it was not scored."""
    if name not in compared.scores:
        return None
    bits, of = compared.scores[name]["bits"][kind], compared.heldout[kind]
    return sum(sum(bits[text]) / of[text]["bytes"] for text in of) / len(of)
