"""Time trainings of a study side by side, on this machine, in turns.

    python -m tools.seconds recipes/study/tables-or-patches.toml results/tables-or-patches \\
        flat-tables-2e13-size3-lr0.004-s0 \\
        counts-patches-of-6-gated-tables-48-wide-2e13-size2-lr0.004-s0 --out runs/timed

A study times what it compares when that has ended, on whatever processor it has by then. Here runs
are timed on one: new models of the same recipes, as what a step takes does not depend on what a
model has learned (runs whose patches do are refused). In each turn each takes 30 steps, after
another that is not counted; a line for each says the median of its turns, and the seconds of the
whole training by it. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from blt.data.loader import Loader
from blt.errors import require
from blt.machine.hardware import device_name
from blt.study import Point, read_study
from blt.study.costs import megabyte_seconds
from blt.study.folder import StudyFolder
from blt.study.lines import Line
from blt.study.timing import Clock
from blt.study.training import Training
from blt.train.build import model_of
from blt.train.corpus import texts_of
from blt.train.job import make_fast
from blt.train.run import RunFolder
from blt.train.trainer import Trainer
from tools.asked import bare, mistakes_end, positive
from tools.lines import rounded
from tools.retrain import published


def new_trainer(training: Training, point: Point) -> Trainer:
    """Of a new model; its table or tokenizer is learned.

    Raises:
        UserError: a model whose patches depend on what a model has learned.
    """
    model = point.recipe.model
    learns = point.patcher is not None or (model is not None and model.patching.is_learned)
    require(not learns, f"{point.name}: how it cuts, and so its time, depends on what was learned")
    recipe = training.resolved(point)
    sources, data = training.sources(recipe), recipe.data
    lm = model_of(recipe, RunFolder(training.out.run(point.name)), sources, None).train()
    make_fast(lm, recipe.train)
    sizes = {"batch_bytes": data.batch_bytes, "context_bytes": data.context_bytes}
    loader = Loader(texts_of(sources, data), data.weights, **sizes, seed=recipe.seed)
    return Trainer(lm, loader, recipe.train)


def timed(line: Line, turns: Sequence[float]) -> Line:
    """What is said of a run: seconds of a million bytes in each turn, and of its training."""
    median = statistics.median(turns)
    return {
        "name": line["name"],
        "bytes_seen": line["bytes_seen"],
        "seconds": median * line["bytes_seen"] / 1e6,
        "seconds_per_megabyte": median,
        "turns": [round(turn, 4) for turn in turns],
    }


def measure(given: argparse.Namespace) -> None:
    """Time all, and print their lines."""
    study = read_study(given.study)
    runs = list(published(study, given.folder, given.runs))
    out = StudyFolder(given.out)
    out.make()
    training = Training(study, out, Clock(None), None)
    trainers = [new_trainer(training, point) for point, _ in runs]
    turns = [[megabyte_seconds(trainer) for trainer in trainers] for _ in range(given.turns + 1)]
    where = {"threads": torch.get_num_threads(), "on": device_name(trainers[0].model.device)}
    for (_, line), trainer, times in zip(runs, trainers, zip(*turns[1:], strict=True), strict=True):
        print(json.dumps(rounded({**timed(line, times), **where})))
        trainer.loader.close()


def main(words: Sequence[str] | None = None) -> None:
    asked = bare("tools.seconds", __doc__)
    asked.add_argument("study", help="its recipe")
    asked.add_argument("folder", type=Path, help="where its lines are")
    asked.add_argument("runs", nargs="+", metavar="RUN", help="a name from results.jsonl")
    asked.add_argument("--out", type=Path, required=True, help="a tokenizer is kept there")
    asked.add_argument("--turns", type=positive, default=5, help="how often each is timed")
    with mistakes_end():
        measure(asked.parse_args(words))


if __name__ == "__main__":
    main()
