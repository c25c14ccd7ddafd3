"""How a model that learns to cut its text is brought to patches of the size that is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from blt.model.routing import Routes
from blt.train.recipe import Recipe
from blt.train.sections import RoutingConfig

FIRST_SIZE = 1.5  # bytes per patch, at the start


class Pressed(NamedTuple):
    """What the routes of a batch add to its loss."""

    loss: Tensor | float  # nats per target
    patch_size: float | None  # mean bytes per patch; None: not a model that cuts by itself


@dataclass(frozen=True)
class Compression:
    """The ratio loss, with a target that rises from :data:`FIRST_SIZE`.

    Attributes:
        target: bytes per patch, in the end.
        config: how strongly, and how soon.
    """

    target: float = 4.5
    config: RoutingConfig = field(default_factory=RoutingConfig)

    @classmethod
    def of(cls, recipe: Recipe) -> Compression:
        return cls(recipe.target_patch_size, recipe.routing or RoutingConfig())

    def size(self, progress: float) -> float:
        """Bytes per patch to aim at once this share of the training is done."""
        first = min(FIRST_SIZE, self.target)
        share = min(1.0, progress / self.config.warmup) if self.config.warmup else 1.0
        return first + share * (self.target - first)

    def press(self, routes: list[Routes], progress: float) -> Pressed:
        """The routes of a forward, if it had any; the number of patches is known by then."""
        if not routes:
            return Pressed(0.0, None)
        (found,) = routes
        loss = self.config.ratio_loss * found.ratio_loss(self.size(progress))
        return Pressed(loss, found.batch.mean_patch_size)
