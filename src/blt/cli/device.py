"""The option ``--device``, of every verb that runs a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

if TYPE_CHECKING:
    import torch

PLACES = "auto (a GPU where there is one), cpu, cuda, or one of several, such as cuda:1"
Device = Annotated[str, arg(help=f"Where the model works: {PLACES}.")]
RecipeDevice = Annotated[
    str | None, arg(help=f"Instead of the recipe's train.device: {PLACES}.", metavar="STR")
]


def chosen(device: str) -> torch.device:
    """The device that the option names.

    Raises:
        UserError: it is not there.
    """
    from blt.machine.precision import choose_device

    return choose_device(device, "--device")


def changes_for(device: str | None) -> tuple[str, ...]:
    """Changes to a recipe, so that it trains where the option says.

    Raises:
        UserError: it is not there.
    """
    if device is None:
        return ()
    chosen(device)
    return (f"train.device={json.dumps(device)}",)
