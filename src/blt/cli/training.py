"""Verbs around training: plan, train, compare."""

from __future__ import annotations

import os
from pathlib import Path

from tyro.conf import Positional

from blt.errors import UserError
from blt.views.console import say

FEW_STEPS = 20  # after which a model knows next to nothing


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

    from blt.byteify import hooks_of
    from blt.train.job import train_recipe
    from blt.train.loop import Latest
    from blt.train.recipe import read_recipe
    from blt.views.console import Console
    from blt.views.progress import training_bar

    if resume and run is None:
        raise UserError("--resume needs --run FOLDER, the run to go on with")
    if run is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("several processes need --run FOLDER, the same for all")
    folder = run or Path("runs") / f"{recipe.stem}-{strftime('%Y%m%d-%H%M%S')}"
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    made = read_recipe(recipe, overrides)
    with training_bar(console, recipe.stem) as show:
        latest = Latest(show)
        hooks = hooks_of(made)
        train_recipe(made, folder, resume, latest, on_prepare=show.prepare, hooks=hooks)
    steps = 0 if latest.report is None else latest.report.step
    if steps < FEW_STEPS and steps != made.train.steps:  # it was seconds or flops that ended it
        fitted = "1 step" if steps == 1 else f"{steps} steps"
        console.print(f"only {fitted} fitted into the budget; give it more", markup=False)
    verb = "eval bpb TEXT" if made.kind == "token" else 'generate "some text"'
    console.print(f"next: blt {verb} --model {folder}/checkpoint", soft_wrap=True, markup=False)


def byteify(
    source: Positional[str],
    recipe: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    run: Path,
    resume: bool = False,
    scratch: bool = False,
) -> None:
    """Turn a token model into a byte model: a BLT whose global transformer begins as its layers.

    Then compares both on held-out text, in RUN/byteify.json and RUN/byteify.png.

    Args:
        source: Token model: a folder of blt train, or of transformers (Llama, Mistral), or a hub
            id such as owner/name.
        recipe: TOML file with a section byteify, such as recipes/byteify.toml.
        overrides: Changes to the recipe, such as byteify.distill=0.5.
        run: Folder to make, for checkpoint and metrics.
        resume: Go on from the checkpoint in the run folder.
        scratch: Also train a BLT of the same shape from random weights, in RUN/scratch, and tell
            how much of its distance to the source is closed.
    """
    import json

    from blt.byteify import byteify as run_byteify
    from blt.train.recipe import read_recipe
    from blt.views.byteify import show_result
    from blt.views.console import Console
    from blt.views.progress import training_bar

    changes = (*overrides, f"byteify.source={json.dumps(source)}")
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    result = run_byteify(
        read_recipe(recipe, changes),
        run,
        resume=resume,
        scratch=scratch,
        show=lambda name: training_bar(console, name),
    )
    if result is not None:
        show_result(result, run)


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
    from blt.study import read_results, read_study, run_study
    from blt.study.figures import write_figures
    from blt.views.console import Console
    from blt.views.progress import points

    folder = out or Path("runs") / file.stem
    made = read_study(file)
    if not figures:
        with points(Console()) as show:
            run_study(made, folder, on_point=show)
    for path in write_figures(read_results(folder), folder):
        say(path)


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
        out: File to write. Left out: report.html in the folder; of several, compared.html in the
            first.
        prompt: Of a single run: a text that its model is to continue in the report.
    """
    from blt.views.report import report_runs

    say(report_runs(runs, out, os.fsencode(prompt)))


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
