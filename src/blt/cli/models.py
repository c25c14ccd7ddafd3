"""Verbs that measure models, or carry them from one layout to another."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from blt.cli.options import check_options, refuse_idle
from blt.errors import UserError
from blt.views.console import say


def evaluate(
    task: Positional[str],
    paths: Positional[tuple[str, ...]] = (),
    /,
    *,
    model: tuple[Path, ...] = (),
    context_bytes: int | None = None,
    max_bytes: int | None = None,
    limit: int | None = None,
    generate: bool = False,
    device: str = "cpu",
    json: bool = False,
    plot: Path | None = None,
) -> None:
    """Measure models: bits per byte, noise, languages, valid UTF-8, CUTE.

    Args:
        task: bpb: texts, one row each. noise: texts, disturbed in five ways. languages: a folder of
            parallel text, one file per language. utf8: what the model writes, after nothing and
            after each text. cute: the folder of its .tsv files.
        paths: The texts or data of the task.
        model: Model folders, of ours or of transformers, instead of the model inside the package;
            several are compared.
        context_bytes: Texts are scored in pieces of at most so many bytes. Left out: 2048.
        max_bytes: bpb, noise: of each text. Left out: 262144.
        limit: At most so many questions, sentences or samples.
        generate: cute: also let the model write its answers.
        device: cpu, cuda, or auto.
        json: Print one JSON object for each row.
        plot: Draw the rows into this file too, a PNG, SVG or PDF.
    """
    from blt.checkpoint.pretrained import PRETRAINED
    from blt.evals.compare import compare
    from blt.evals.tasks import Options, find_task
    from blt.views.evals import check_figure, draw, print_json, print_table

    asked = find_task(task)
    if not paths and task != "utf8":
        hint = "; those after --model are taken for models" if len(model) > 1 else ""
        raise UserError(f"{task}: name its texts or data{hint}")
    if plot is not None:
        check_figure(plot)
    counts = {"context_bytes": context_bytes, "max_bytes": max_bytes, "limit": limit}
    given = {name: count for name, count in counts.items() if count is not None}
    check_options(given)
    refuse_idle(task, [*given, *["generate"] * generate], asked.takes)
    rows = compare(task, model or (PRETRAINED,), paths, Options(**given, generate=generate), device)
    found = (print_json if json else print_table)(rows)
    if plot is not None:
        draw(found, asked.shown, plot)


def harness(arguments: Positional[tuple[str, ...]] = (), /) -> int:
    """Run lm-evaluation-harness with --model blt; the arguments are those of its lm_eval.

    Args:
        arguments: blt lm-eval run --help shows them.
    """
    from blt.evals.harness import main as run_harness

    return run_harness(arguments)


def convert(
    source: Positional[str],
    out: Positional[Path],
    /,
    *,
    to: Literal["blt", "transformers", "meta"] = "blt",
    entropy_model: str | None = None,
    precision: Literal["float32", "bfloat16"] | None = None,
) -> None:
    """Write a model in another layout: ours, that of transformers, or Meta's.

    Args:
        source: Model folder in any of the layouts, or a hub id such as itazap/blt-1b-hf.
        out: Folder to make.
        to: Layout to write.
        entropy_model: Of a BLT of Meta's: folder or hub id of its entropy model.
        precision: Of the weights. Left out: as they are, bit for bit.
    """
    from blt.checkpoint.convert import convert as run

    run(source, out, to, entropy_model=entropy_model, precision=precision)
    say(out)


def verify(folder: Positional[Path], /) -> int:
    """Read a model, a run or prepared text whole, and name what is damaged in it.

    Ends with status 1 where something is.

    Args:
        folder: Model folder in any layout, run folder of blt train, or folder of blt prepare.
    """
    from blt.verify import verify as run
    from blt.views.verify import print_verdict

    verdict = run(folder)
    print_verdict(folder, verdict)
    return 1 if verdict.faults else 0


def push(
    folder: Positional[Path],
    repository: Positional[str],
    /,
    *,
    public: bool = False,
    license: str | None = None,
) -> None:
    """Upload a model folder to the Hugging Face hub, with a card; log in with `hf auth login`.

    Args:
        folder: Model folder in any layout; its README.md, if there is one, is the card.
        repository: Where to, such as me/my-blt.
        public: Everybody may see it.
        license: For the card, such as apache-2.0.
    """
    from blt.checkpoint.push import push_to_hub

    say(push_to_hub(folder, repository, private=not public, license=license))
