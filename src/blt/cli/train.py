"""``blt train``: one training, with a bar, and what to do next."""

from __future__ import annotations

import os
from pathlib import Path
from time import strftime

from tyro.conf import Positional, UseAppendAction

from blt.cli.device import RecipeDevice, changes_for
from blt.errors import UserError
from blt.report.console import Console

FEW_STEPS = 20  # after which a model knows next to nothing


def train(
    recipe: Positional[Path | None] = None,
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    run: Path | None = None,
    resume: bool = False,
    change: UseAppendAction[tuple[str, ...]] = (),
    device: RecipeDevice = None,
) -> None:
    """Train the model that a recipe describes.

    Args:
        recipe: TOML file of one experiment: text, model, optimiser, how long. With --resume the
            folder of a run will do.
        overrides: Changes to the recipe, such as train.seconds=60.
        run: Folder to make, for checkpoint and metrics. Left out: runs/RECIPE-DATE-TIME.
        resume: Go on from the checkpoint in the run folder.
        change: With --resume: a value that is another one from now on, such as train.lr=1e-4; may
            be given several times. The run folder keeps a list of them.
    """
    from blt.byteify import hooks_of
    from blt.report.progress import training_bar
    from blt.train.job import train_recipe
    from blt.train.loop import Latest
    from blt.train.opening import names_of, read_changed
    from blt.train.recipe import read_recipe
    from blt.train.run import RECIPE

    if change and not resume:
        raise UserError("--change is for a run that goes on; a new one takes section.key=value")
    if recipe is not None and (recipe / RECIPE).is_file():  # of a run
        if run is not None and run.resolve() != recipe.resolve():
            raise UserError(
                f"{recipe} is the folder of a run, and --run {run} another one: go on with one of "
                f"them (--resume), or train anew by {recipe / RECIPE}"
            )
        recipe, run = None, run or recipe
    if resume and run is None:
        raise UserError("--resume needs a run: --resume FOLDER, or a recipe with --run FOLDER")
    if recipe is None and not resume:
        raise UserError("name a recipe (recipes/*.toml), or go on with a run: --resume FOLDER")
    if run is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("several processes need --run FOLDER, the same for all")
    name = recipe.stem if recipe is not None else str(run.name if run is not None else "")
    folder = run or Path("runs") / f"{name}-{strftime('%Y%m%d-%H%M%S')}"
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    asked = (*overrides, *change, *changes_for(device))
    made = read_changed(folder, asked) if recipe is None else read_recipe(recipe, asked)
    with training_bar(console, name) as show:
        latest = Latest(show)
        hooks, changed = hooks_of(made), names_of(change)
        train_recipe(
            *(made, folder, resume, latest, show.prepare, hooks),
            change=changed,
            say=lambda line: console.print(line, soft_wrap=True, markup=False, highlight=False),
        )
    steps = 0 if latest.report is None else latest.report.step
    if steps < FEW_STEPS and steps != made.train.steps:  # it was seconds or flops that ended it
        fitted = "1 step" if steps == 1 else f"{steps} steps"
        console.print(f"only {fitted} fitted into the budget; give it more", markup=False)
    verb = "eval bpb TEXT" if made.kind == "token" else 'generate "some text"'
    console.print(f"next: blt {verb} --model {folder}/checkpoint", soft_wrap=True, markup=False)
