"""``blt train``: one training, with a bar, and what to do next."""

from __future__ import annotations

import os
from pathlib import Path
from time import strftime

from tyro.conf import Positional

from blt.cli.device import RecipeDevice, changes_for
from blt.errors import UserError
from blt.report.console import Console

FEW_STEPS = 20  # after which a model knows next to nothing


def train(
    recipe: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    run: Path | None = None,
    resume: bool = False,
    device: RecipeDevice = None,
) -> None:
    """Train the model that a recipe describes.

    Args:
        recipe: TOML file of one experiment: text, model, optimiser, how long.
        overrides: Changes to the recipe, such as train.seconds=60.
        run: Folder to make, for checkpoint and metrics. Left out: runs/RECIPE-DATE-TIME.
        resume: Go on from the checkpoint in the run folder.
    """
    from blt.byteify import hooks_of
    from blt.report.progress import training_bar
    from blt.train.job import train_recipe
    from blt.train.loop import Latest
    from blt.train.recipe import read_recipe

    if resume and run is None:
        raise UserError("--resume needs --run FOLDER, the run to go on with")
    if run is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("several processes need --run FOLDER, the same for all")
    folder = run or Path("runs") / f"{recipe.stem}-{strftime('%Y%m%d-%H%M%S')}"
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    made = read_recipe(recipe, (*overrides, *changes_for(device)))
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
