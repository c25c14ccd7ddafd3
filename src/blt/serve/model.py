"""The model that is served: loaded, adapted and cut as the settings say, under whatever runs it."""

from __future__ import annotations

import torch

from blt import lm
from blt.evals.recut import recut
from blt.lm import LanguageModel
from blt.serve.settings import Settings


def model_of(settings: Settings, device: str | torch.device) -> LanguageModel:
    """The model of ``settings``, on ``device``.

    Raises:
        UserError: no such model, an adapter that does not fit it, or another θ for a model that
            has none.
    """
    model = lm.load(settings.model, device, settings.adapter or None)
    recut(model, settings.threshold, settings.target_patch_size, settings.calibrate_on or None)
    return model
