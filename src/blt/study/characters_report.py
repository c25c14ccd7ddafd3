"""What became of the questions about characters: steps until the goal, answers in the end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from blt.files.configs import from_dict
from blt.study.characters import AFTER, BEFORE, best_rate, looks_of
from blt.study.evaluations import Evaluation
from blt.study.evaluations_report import evaluation_sections
from blt.study.finetune import Look, until
from blt.study.lines import Line
from blt.study.markdown import table_head, table_row
from blt.study.search import Search

EXPLAINED = (
    "Median over seeds; in brackets the least and the most. Of each family the best of the rates "
    "{rates} is shown, found with other words; * marks a best rate at the end of that ladder. "
    "{count} held-out questions of each kind, about words that were not trained on, are answered "
    "greedily every {every} steps of {questions} questions; the loss is that of answers alone. "
    "never: not within {steps} steps; where no seed did, with the mean share that is right in the "
    "end. "
    "Guesses are right in a quarter where one of four words or counts is asked for."
)
Taught = dict[str, list[Line]]  # by who was taught: the lines of all seeds, at the best rate


def characters_sections(lines: Sequence[Line], families: Sequence[str]) -> Iterator[str]:
    """Tables for each set of questions and budget that have been asked.

    Args:
        lines: of ``characters.jsonl``.
        families: of the study, in its order.
    """
    for name, budget in asked_of(lines):
        own = [line for line in lines if (line["characters"], line["budget"]) == (name, budget)]
        taught = taught_of(own, families)
        if taught:
            yield f"## {name} at {budget:g} FLOPs: steps until {_goal(own):.0f} % are right\n"
            yield _explained(own) + "\n"
            yield "\n".join(_overall(own, taught)) + "\n"
            yield f"## {name} at {budget:g} FLOPs: each kind of question\n"
            yield "\n".join(_by_kind(taught)) + "\n"
            yield from _asked_sections(name, budget, taught)


def _asked_sections(name: str, budget: float, taught: Taught) -> Iterator[str]:
    """Tables of what the models were asked besides, before and after they were taught."""
    settings = next(iter(taught.values()))[0]["settings"]
    for given in settings.get("evaluations", ()):
        one = from_dict(Evaluation, given, name)
        for when in (BEFORE, AFTER):
            titled = replace(one, name=f"{name}: {one.name} {when}")
            runs = {(who, budget): [line["name"] for line in of] for who, of in taught.items()}
            rows = [
                {
                    "run": line["name"],
                    "evaluation": titled.name,
                    "rows": line["asked"][when][one.name],
                }
                for of in taught.values()
                for line in of
            ]
            yield from evaluation_sections([titled], runs, rows)


def compared_lines(search: Search, lines: Sequence[Line]) -> list[Line]:
    """Fine-tunings of the models that are compared: a longer study may have found others since."""
    chosen = {point.name for point in search.chosen()}
    return [line for line in lines if line["run"] in chosen]


def taught_of(lines: Sequence[Line], families: Sequence[str]) -> Taught:
    """The lines that count, of one set of questions and one budget."""
    found: Taught = {}
    for family in families:
        for split in sorted({line["split"] for line in lines}):
            own = [x for x in lines if (x["family"], x["split"]) == (family, split)]
            best = best_rate([line for line in own if line["part"] == "search"])
            tests = [line for line in own if (line["part"], line["lr"]) == ("test", best)]
            if tests:
                who = family if not split else f"{family}, {100 * split:g} % split"
                found[who] = sorted(tests, key=lambda line: int(line["seed"]))
    return found


def asked_of(lines: Sequence[Line]) -> list[tuple[str, float]]:
    """Names of what was taught, and at which budgets."""
    return list(dict.fromkeys((line["characters"], line["budget"]) for line in lines))


def _goal(lines: Sequence[Line]) -> float:
    return 100 * float(lines[0]["settings"]["goal"])


def _rates(lines: Sequence[Line]) -> list[float]:
    return sorted({line["lr"] for line in lines if line["part"] == "search"})


def _explained(lines: Sequence[Line]) -> str:
    settings = lines[0]["settings"]
    rates = ", ".join(f"{lr:g}" for lr in _rates(lines))
    return EXPLAINED.format(**{**settings, "rates": rates, "count": settings["heldout"]})


def _overall(lines: Sequence[Line], taught: Taught) -> Iterator[str]:
    """A row for each family: what it took until the mean over all kinds reached the goal."""
    rates = _rates(lines)
    yield table_head("family", "rate", "seeds", "steps", "MB", "FLOPs", "right in the end, %")
    for who, of in taught.items():
        lr = of[0]["lr"]
        edge = "*" if len(rates) > 1 and lr in (rates[0], rates[-1]) else ""
        last = [100 * looks_of(line)[-1].mean for line in of]
        yield table_row(
            who,
            f"{lr:g}{edge}",
            str(len(of)),
            _reached(of, None),
            _reached(of, None, lambda look: look.bytes / 1e6, "{:.2f}"),
            _reached(of, None, lambda look: look.flops, "{:.2e}"),
            _spread(last, "{:.0f}"),
        )


def _by_kind(taught: Taught) -> Iterator[str]:
    """Steps until each kind reached the goal: a row for each kind, a column for each family."""
    yield table_head("kind", *taught)
    for kind in looks_of(next(iter(taught.values()))[0])[0].right:
        cells = [_reached(of, kind) for of in taught.values()]
        yield table_row(kind, *cells)


def _reached(
    lines: Sequence[Line],
    kind: str | None,
    number: Callable[[Look], float] = lambda look: look.step,
    shown: str = "{:g}",
) -> str:
    """A number of the first look at which the goal was reached, over seeds."""
    looks = [looks_of(line) for line in lines]
    goal = lines[0]["settings"]["goal"]
    found = [until(of, goal, kind) for of in looks]
    values = [math.inf if look is None else number(look) for look in found]
    if not math.isinf(min(values)):
        return _spread(values, shown)
    last = [of[-1].mean if kind is None else of[-1].right[kind] for of in looks]
    return f"never ({100 * statistics.mean(last):.0f} %)"


def _spread(values: Sequence[float], shown: str) -> str:
    """Median, least and most; what has no end was never reached."""
    middle, low, high = (
        "never" if math.isinf(value) else shown.format(value)
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} [{low}, {high}]"
