"""How any model is trained belongs here: recipes, optimisers, the loop, run folders, and hooks for
whoever wants more; no kind of training in particular, and no comparison.
"""

from blt.patching.calibration import calibrate, mean_patch_size
from blt.train.build import build_blt
from blt.train.corpus import loader
from blt.train.hooks import Hooks
from blt.train.job import train_recipe
from blt.train.loop import Report, fit
from blt.train.opening import open_run
from blt.train.recipe import Recipe, read_recipe, write_recipe
from blt.train.run import RunFolder
from blt.train.sections import DataConfig, TrainConfig

__all__ = [
    "DataConfig",
    "Hooks",
    "Recipe",
    "Report",
    "RunFolder",
    "TrainConfig",
    "build_blt",
    "calibrate",
    "fit",
    "loader",
    "mean_patch_size",
    "open_run",
    "read_recipe",
    "train_recipe",
    "write_recipe",
]
