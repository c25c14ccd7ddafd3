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


def bench(
    suite: Positional[str] = "model",
    file: Positional[Path | None] = None,
    /,
    *,
    json: bool = False,
    only: tuple[str, ...] = (),
    model: Path | None = None,
    clients: int = 64,
    seconds: float = 60.0,
    prompt_bytes: int = 64,
    max_bytes: int = 256,
    batch: int = 16,
    chaos: bool = False,
) -> int:
    """Measure speed and memory beside transformers on this machine.

    Args:
        suite: model (training, scoring, entropies), generate, or serve (beside the bare engine).
        file: Write the results to this file too, as JSON.
        json: Print the results as JSON, and the tables to standard error; with a file, there.
        only: model: names of the benchmarks to run; left out: all of them.
        model: generate: folder of a trained BLT, to measure self-speculation on; serve: folder of
            the model to serve, instead of the model inside the package.
        clients: serve: how many ask at the same time.
        seconds: serve: for so long.
        prompt_bytes: serve: of prompts, at most.
        max_bytes: serve: of continuations, at most.
        batch: serve: how many texts are written at the same time.
        chaos: serve: some clients leave, read slowly, send too much or nonsense.
    """
    from blt.bench import run

    if suite == "serve":
        from blt.errors import needed

        needed("aiohttp", extra="bench")
        from blt.bench.serve import Load
        from blt.bench.serve import run as run_load

        folder = str(model) if model is not None else Load.model
        load = Load(folder, clients, seconds, prompt_bytes, max_bytes, batch, chaos)
        return run_load(file, json, load)
    if suite not in ("model", "generate"):
        if file is not None:
            raise UserError(f"unknown benchmark suite {suite!r}: choose model, generate or serve")
        suite, file = "model", Path(suite)
    return run(file, json, only, generation=suite == "generate", model=model)


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
