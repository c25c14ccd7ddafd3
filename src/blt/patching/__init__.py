"""What cuts bytes into patches belongs here: rules, and all that a rule needs, calibration too; of
models only the protocol of one that gives entropies.
"""

from blt.patching.cut import Cut, Patches
from blt.patching.deciding import decide
from blt.patching.patcher import Patcher
from blt.patching.rules import RULES, PatchingConfig, Rule, is_space_like, refuse_unused
from blt.patching.streaming import Boundaries
from blt.patching.tables import lookup_entropies
from blt.patching.views import (
    ids_to_starts,
    lengths_to_starts,
    mean_patch_size,
    starts_to_ids,
    starts_to_lengths,
)

__all__ = [
    "RULES",
    "Boundaries",
    "Cut",
    "Patcher",
    "Patches",
    "PatchingConfig",
    "Rule",
    "decide",
    "ids_to_starts",
    "is_space_like",
    "lengths_to_starts",
    "lookup_entropies",
    "mean_patch_size",
    "refuse_unused",
    "starts_to_ids",
    "starts_to_lengths",
]
