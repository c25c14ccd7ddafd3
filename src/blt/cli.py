"""The command ``blt``: one verb per job. Imports that are slow happen inside the verbs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction

from blt import __version__
from blt.errors import UserError

DESCRIPTION = """Byte Latent Transformer: language models that read bytes, not tokens.

Start with `blt patch "some text"`, or train a model of your own in ten minutes with `blt demo`.
`blt VERB --help` explains a verb."""


def patch(
    text: Positional[str | None] = None,
    /,
    *,
    file: Path | None = None,
    rule: str | None = None,
    threshold: float | None = None,
    threshold_add: float | None = None,
    stride: int | None = None,
    max_patch_length: int | None = None,
    newline_reset: bool = False,
    target: float | None = None,
    model: Path | None = None,
    tokenizer: Path | None = None,
    table: Path | None = None,
    make_table: Path | None = None,
    order: int = 2,
    json: bool = False,
) -> None:
    """Cut text into patches, and show where and why.

    Args:
        text: Text to cut. Left out: --file, or what comes through a pipe.
        file: Cut the bytes of this file; any bytes will do.
        rule: entropy, entropy-monotonic, entropy-combined, space, static, byte, lookup or bpe.
        threshold: Entropy rules: start a patch where the next byte's entropy is above this (nats).
        threshold_add: entropy-combined: the entropy must also rise by more than this (nats).
        stride: static: bytes per patch.
        max_patch_length: Split longer patches into runs of this many bytes.
        newline_reset: The entropy model forgets everything after each newline.
        target: Choose the threshold that gives patches of so many bytes on average in this text.
        model: Folder of a BLT or byte model to cut with, instead of the one inside the package.
        tokenizer: bpe: a tokenizer.json.
        table: lookup: a table written by --make-table.
        make_table: Write a lookup table learned from this text to this file; cut nothing.
        order: --make-table: how many of the last bytes the table looks at, 1 to 3.
        json: Print one JSON object: entropies in nats, patches as text and exactly in base64.
    """
    from blt import cutting
    from blt.views.cut import print_cut, print_json

    data = _read_input(text, file)
    parameters = {
        "threshold": threshold,
        "threshold_add": threshold_add,
        "stride": stride,
        "max_patch_length": max_patch_length,
        "newline_reset": newline_reset or None,
    }
    cutter = cutting.build(rule, parameters, model=model, table=table, tokenizer=tokenizer)
    if target is not None:
        cutter = cutter.calibrated(data, target)
    if make_table is not None:
        print(cutter.write_table(data, make_table, order))
    else:
        (print_json if json else print_cut)(cutter.cut(data))


def prepare(
    sources: Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    entropy_model: str | None = None,
    newline_reset: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    heldout: float = 0.01,
    segment_bytes: int = 8192,
    shard_mb: int = 64,
    max_broken: int = 100,
    engine: Literal["local", "ray"] = "local",
    workers: int = 2,
) -> None:
    """Turn text into shards to train on: read once, divided, entropies computed ahead.

    Run again after a kill, it goes on where it was.

    Args:
        sources: Files, folders, globs, hf:NAME[@SPLIT] or builtin:python.
        out: Folder to make.
        entropy_model: Store this model's entropies: its folder, or "pretrained".
        newline_reset: The entropy model forgets everything after each newline.
        precision: Of the entropy model's matrix products.
        heldout: Share of documents that is kept from training, by a hash of their content.
        segment_bytes: Longest run of bytes that can be trained on at once.
        shard_mb: Megabytes of text in a shard.
        max_broken: Lines without a document that are left out of one file before it is an error.
        engine: local, or ray: on the Ray cluster of RAY_ADDRESS, or one started here.
        workers: ray: so many files at the same time.
    """
    from blt.data.prepare import Options
    from blt.data.prepare import prepare as run
    from blt.views.prepare import preparing, print_manifest

    options = Options(
        sources,
        heldout=heldout,
        entropy_model=entropy_model,
        newline_reset=newline_reset,
        precision=precision,
        segment_bytes=segment_bytes,
        shard_bytes=shard_mb * 2**20,
        max_broken=max_broken,
    )
    with preparing() as show:
        ray_workers = workers if engine == "ray" else None
        manifest = run(out, options, ray_workers=ray_workers, on_progress=show)
    print_manifest(out, manifest)


def plan(
    recipe: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    hardware: str = "laptop",
    mfu: float = 0.4,
    price: float | None = None,
    json: bool = False,
) -> None:
    """Tell what training a recipe takes: parameters, FLOPs, memory, time, cost.

    Reads no text, and trains nothing.

    Args:
        recipe: TOML file of one experiment.
        overrides: Changes to the recipe, such as data.context_bytes=8192.
        hardware: Devices, one process each, such as 8xH100.
        mfu: Share of the devices' peak that training reaches.
        price: Dollars per device and hour. Left out: about what clouds ask.
        json: Print one JSON object.
    """
    from blt.plan import find_hardware, make_plan
    from blt.train.recipe import read_recipe
    from blt.views.plan import print_json, print_plan

    if not 0 < mfu <= 1:
        raise UserError(f"--mfu must be above 0 and at most 1, got {mfu}")
    devices = find_hardware(hardware)
    made = make_plan(read_recipe(recipe, overrides), devices, mfu, price)
    (print_json if json else print_plan)(made, devices, mfu)


def train(
    recipe: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    run: Path | None = None,
    resume: bool = False,
) -> None:
    """Train the model that a recipe describes.

    Args:
        recipe: TOML file of one experiment: text, model, optimiser, how long.
        overrides: Changes to the recipe, such as train.seconds=60.
        run: Folder to make, for checkpoint and metrics. Left out: runs/RECIPE-DATE-TIME.
        resume: Go on from the checkpoint in the run folder.
    """
    from time import strftime

    from rich.console import Console

    from blt.train.job import train_recipe
    from blt.train.recipe import read_recipe
    from blt.views.progress import training_bar

    if resume and run is None:
        raise UserError("--resume needs --run FOLDER, the run to go on with")
    if run is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("several processes need --run FOLDER, the same for all")
    folder = run or Path("runs") / f"{recipe.stem}-{strftime('%Y%m%d-%H%M%S')}"
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    with training_bar(console, recipe.stem) as show:
        train_recipe(read_recipe(recipe, overrides), folder, resume, show)
    console.print(
        f'next: blt generate "some text" --model {folder}/checkpoint', soft_wrap=True, markup=False
    )


def study(
    file: Positional[Path],
    /,
    *,
    out: Path | None = None,
    figures: bool = False,
) -> None:
    """Train a grid of models at equal FLOPs, score them, and draw what comes out.

    Run again after a kill, it goes on where it was.

    Args:
        file: TOML file of the study; docs/study.md shows one.
        out: Folder to make or to go on in. Left out: runs/FILE.
        figures: Train nothing: draw what is there.
    """
    from rich.console import Console

    from blt.study import read_results, read_study, run_study
    from blt.study.figures import write_figures
    from blt.views.progress import points

    folder = out or Path("runs") / file.stem
    made = read_study(file)
    if not figures:
        with points(Console()) as show:
            run_study(made, folder, on_point=show)
    for path in write_figures(read_results(folder), folder):
        print(path)


def evaluate(
    task: Positional[str],
    paths: Positional[tuple[str, ...]] = (),
    /,
    *,
    model: Path | None = None,
    context_bytes: int = 2048,
    max_bytes: int = 262144,
    limit: int | None = None,
    generate: bool = False,
    json: bool = False,
    plot: Path | None = None,
) -> None:
    """Measure a model: bits per byte, noise, languages, valid UTF-8, benchmarks.

    Args:
        task: bpb: texts, one row each. noise: texts, disturbed in five ways. languages: a folder of
            parallel text, one file per language. utf8: what the model writes, after nothing and
            after each text. hellaswag: its JSONL file, whole and disturbed. cute: the folder of its
            .tsv files. blimp, piqa, lambada: their JSONL files.
        paths: The texts or data of the task.
        model: Model folder, of ours or of transformers, instead of the model inside the package.
        context_bytes: Texts are scored in pieces of at most so many bytes.
        max_bytes: Of each text.
        limit: At most so many questions, sentences or samples.
        generate: cute: also let the model write its answers.
        json: Print one JSON object for each row.
        plot: Draw the rows into this file too, a PNG or SVG.
    """
    from blt.evals.models import load
    from blt.evals.tasks import TASKS, Options
    from blt.pretrained import PRETRAINED
    from blt.views.evals import check_figure, draw, print_json, print_table

    if task not in TASKS:
        raise UserError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    if not paths and task != "utf8":
        raise UserError(f"{task}: name its texts or data")
    if plot is not None:
        check_figure(plot)
    options = Options(context_bytes, max_bytes, limit, generate)
    rows = TASKS[task].rows(load(model or PRETRAINED), paths, options)
    found = (print_json if json else print_table)(rows)
    if plot is not None:
        draw(found, TASKS[task].shown, plot)


def harness(arguments: Positional[tuple[str, ...]] = (), /) -> int:
    """Run lm-evaluation-harness with --model blt; the arguments are those of its lm_eval.

    Args:
        arguments: blt lm-eval run --help shows them.
    """
    from blt.evals.harness import main as run_harness

    return run_harness(arguments)


def report(
    runs: Positional[tuple[Path, ...]],
    /,
    *,
    out: Path | None = None,
    prompt: str = "",
) -> None:
    """Write an HTML report of a training, or one that compares several; no network needed.

    Args:
        runs: Run folders of blt train, finished or not.
        out: File to write. Left out: report.html in the first folder.
        prompt: Of a single run: a text that its model is to continue in the report.
    """
    from blt.views.report import report_runs

    print(report_runs(runs, out, os.fsencode(prompt)))


def generate(
    prompt: Positional[str] = "",
    /,
    *,
    model: Path | None = None,
    prompts: Path | None = None,
    max_bytes: int = 256,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    stop: UseAppendAction[tuple[str, ...]] = (),
    valid_utf8: bool = False,
    precision: str | None = None,
    draft_bytes: int = 0,
    batch: int = 16,
    show_patches: bool = False,
    raw: bool = False,
    json: bool = False,
    stats: bool = False,
) -> None:
    """Let a model continue a prompt.

    Args:
        prompt: Text to continue; "-" reads it from a pipe.
        model: Model folder, such as RUN/checkpoint, instead of the model inside the package.
        prompts: File with a prompt on each line, instead of one prompt; "-" reads a pipe.
        max_bytes: How many bytes to write at most.
        temperature: 0 always takes the most likely byte; higher is more varied.
        top_k: Choose among the k most likely bytes only.
        top_p: Choose among the likeliest bytes that have this probability together.
        min_p: Choose among bytes at least this likely, relative to the likeliest.
        repetition_penalty: Above 1 makes what occurs in the text less likely.
        seed: The same seed writes the same text; line i of --prompts has seed + i.
        stop: End before this string; may be given several times. A newline is $'\\n' in bash.
        valid_utf8: Never write bytes that cannot become valid UTF-8.
        precision: Of the weights: float32, bfloat16 or int8. Left out: as the model is.
        draft_bytes: Self-speculation: guess so many bytes at once, then verify them together.
        batch: How many prompts are continued at the same time.
        show_patches: Colour patches as they form.
        raw: Write the bytes as they are, also where they are not valid UTF-8; for one prompt.
        json: Write one JSON object per prompt on a line, with log-probabilities and patches.
        stats: Say on standard error how fast it was, and how large patches were.
    """
    from blt.generate import Engine, Sampling
    from blt.pretrained import PRETRAINED, load
    from blt.views import stream

    if show_patches + raw + json > 1:
        raise UserError("choose one of --show-patches, --raw and --json")
    texts = _read_prompts(prompt, prompts)
    if raw and len(texts) != 1:
        raise UserError("--raw is for one prompt; --json has the bytes of several, in base64")
    if batch < 1:
        raise UserError(f"--batch must be at least 1, got {batch}")
    sampling = Sampling(
        max_bytes=max_bytes,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=tuple(os.fsencode(s) for s in stop),
        valid_utf8=valid_utf8,
    )
    engine = Engine(
        load(model or PRETRAINED),
        max_batch=min(batch, max(1, len(texts))),
        max_queue=max(1, len(texts)),
        precision=precision,  # type: ignore[arg-type]
        draft_bytes=draft_bytes,
    )
    writers = {"show_patches": show_patches, "raw": raw, "json": json}
    chosen = next((name for name, wanted in writers.items() if wanted), "text")
    writer: stream.Writer = {
        "show_patches": stream.write_patches,
        "raw": stream.write_raw,
        "json": stream.write_json,
        "text": stream.write_text,
    }[chosen]
    if len(texts) > 1 and not json:
        writer = stream.headed(writer)
    clock = stream.Clock(engine)
    stream.write_all(engine, texts, sampling, clock.watch(writer))
    if stats:
        print(clock.line(), file=sys.stderr)


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
    from blt.convert import convert as run

    run(source, out, to, entropy_model=entropy_model, precision=precision)
    print(out)


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
    from blt.convert.push import push_to_hub

    print(push_to_hub(folder, repository, private=not public, license=license))


def serve(
    model: Positional[str] = "pretrained",
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str = "",
    keys: str = "",
    cors_origin: UseAppendAction[tuple[str, ...]] = (),
    batch: int = 16,
    queue: int = 256,
    memory_mb: int = 4096,
    precision: Literal["float32", "bfloat16", "int8"] | None = None,
    draft_bytes: int = 0,
    timeout: float = 300.0,
    drain: float = 60.0,
    max_prompt: int = 32768,
    max_bytes: int = 8192,
    max_choices: int = 64,
    max_body: int = 2097152,
) -> None:
    """Serve a model over HTTP, to OpenAI's clients and to browsers.

    Args:
        model: Model folder, such as RUN/checkpoint; left out: the model inside the package.
        host: Address to listen on; 0.0.0.0 for the whole network (give --keys then).
        port: 0 takes a free one.
        name: Of the model, for clients; left out: that of its folder.
        keys: File with one API key per line; left out: everybody is served.
        cors_origin: A web site whose scripts may call; may be given several times.
        batch: How many texts are written at the same time.
        queue: How many may wait; more are told 429.
        memory_mb: Megabytes for caches of texts.
        precision: Of the weights: float32, bfloat16 or int8. Left out: as the model is.
        draft_bytes: Self-speculation, where a request says nothing.
        timeout: Seconds that a request may take.
        drain: Seconds that accepted requests get after SIGTERM.
        max_prompt: Bytes of a prompt, or of a text to score or cut.
        max_bytes: Bytes that may be written for a choice.
        max_choices: Choices of one request.
        max_body: Bytes of an HTTP body.
    """
    try:
        from blt.serve.run import serve as run
        from blt.serve.settings import Limits, Settings
    except ImportError as error:
        raise UserError(f"{error}; blt serve needs: pip install 'blt[serve]'") from None

    limits = Limits(
        body_bytes=max_body,
        prompt_bytes=max_prompt,
        max_bytes=max_bytes,
        choices=max_choices,
        timeout=timeout,
    )
    settings = Settings(
        model,
        name=name,
        max_batch=batch,
        max_queue=queue,
        memory_budget=memory_mb * 2**20,
        precision=precision,
        draft_bytes=draft_bytes,
        keys=keys,
        cors_origins=cors_origin,
        drain_seconds=drain,
        limits=limits,
    )
    run(settings, host, port)


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


def demo(
    *,
    text: Path | None = None,
    run: Path | None = None,
    minutes: float = 9.0,
    patch_size: float = 4.5,
    seed: int = 0,
    pretrained: bool = False,
) -> None:
    """Train a small model in ten minutes, and compare and watch it.

    Args:
        text: Text file or folder to learn from, instead of this Python's own source and docs.
        run: Folder to write to; left out: runs/demo-DATE-TIME.
        minutes: Time for everything together.
        patch_size: Bytes per patch that the threshold is calibrated to.
        seed: Of the weights, the order of the data and the sample.
        pretrained: Train nothing: score the text with the model inside the package, and watch it.
    """
    from blt.demo import run_demo, show_pretrained

    if pretrained:
        if run is not None:
            raise UserError("--pretrained trains nothing, so it has no --run; leave one out")
        show_pretrained(text, seed)
        return
    run_demo(text=text, folder=run, minutes=minutes, patch_size=patch_size, seed=seed)


VERBS: dict[str, Any] = {
    "patch": patch,
    "prepare": prepare,
    "plan": plan,
    "train": train,
    "eval": evaluate,
    "lm-eval": harness,
    "study": study,
    "report": report,
    "generate": generate,
    "convert": convert,
    "push": push,
    "serve": serve,
    "bench": bench,
    "demo": demo,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args in (["--version"], ["-V"]):
        print(f"blt {__version__}")
        return 0
    try:
        status = _run(args or ["--help"])
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as interrupt:
        print(f"blt: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left: so do we, without a word at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError) as error:
        if os.environ.get("BLT_DEBUG"):
            raise
        print(f"blt: {_one_line(error)}", file=sys.stderr)
        return 2


def _run(args: list[str]) -> int:
    try:
        if args[0] == "lm-eval" and args[1:] not in (["--help"], ["-h"]):  # others' options
            return harness(tuple(args[1:]))
        status = tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="blt",
            description=DESCRIPTION,
            args=args,
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
        )
    except SystemExit as stop:  # --help, or arguments that tyro has already explained
        return stop.code if isinstance(stop.code, int) else 2
    return status or 0


WAYS_OUT = {
    FileNotFoundError: "check the path",
    PermissionError: "check its permissions",
    IsADirectoryError: "give a file, not a folder",
    NotADirectoryError: "give a folder, not a file",
}


def _one_line(error: Exception) -> str:
    """What, where and the way out."""
    if isinstance(error, OSError) and error.filename is not None:
        way_out = WAYS_OUT.get(type(error))
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
        return f"{message}; {way_out}" if way_out else message
    return " ".join(str(error).split()) or type(error).__name__


def _read_input(text: str | None, file: Path | None) -> bytes:
    """The bytes to cut, from the one place that was named."""
    if text is not None and file is not None:
        raise UserError("both a text and --file are given; choose one")
    if file is not None:
        return file.read_bytes()
    if text is not None:
        return os.fsencode(text)
    if sys.stdin.isatty():
        raise UserError('no text to cut; try: blt patch "some text", --file FILE, or a pipe')
    return sys.stdin.buffer.read()


def _read_prompts(prompt: str, file: Path | None) -> list[bytes]:
    """The prompts to continue, from the one place that was named."""
    if file is not None and prompt:
        raise UserError("both a prompt and --prompts are given; choose one")
    if file is not None:
        return (_read_pipe() if str(file) == "-" else file.read_bytes()).splitlines()
    if (Path(prompt) / "config.json").is_file():
        raise UserError(f'{prompt}: is a model folder; try: blt generate "text" --model {prompt}')
    return [_read_pipe() if prompt == "-" else os.fsencode(prompt)]


def _read_pipe() -> bytes:
    return sys.stdin.buffer.read()


if __name__ == "__main__":
    sys.exit(main())
