"""What others can have done in a training, without the trainer knowing what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from blt.data.text import Source
from blt.lm import LanguageModel
from blt.model.language import Batch, Ready
from blt.patching import PatchingConfig
from blt.train.recipe import Recipe


class Extra(NamedTuple):
    """What is added to the cross-entropy of a batch."""

    loss: Tensor | float = 0.0  # nats, summed over the batch
    # Done for it; below 0 where a step leaves out some of what training all of the model takes.
    flops: float = 0.0


class Hooks:
    """Called by a training in this order; these do nothing, a subclass overrides what it needs.

    Whatever they do must follow from the recipe and their arguments: nothing of theirs is in
    checkpoints, and a resumed training calls them again.
    """

    def resolve(self, recipe: Recipe) -> Recipe:
        """The recipe with all that it leaves to the hooks; before anything is written.

        Raises:
            UserError: something that the hooks need is not there.
        """
        return recipe

    def memory(self, batch_bytes: int, patch_size: float, itemsize: int) -> int:
        """Bytes on the device of each process, besides those of a step that trains the model.

        Args:
            batch_bytes: ids that a process lays into one batch.
            patch_size: mean bytes per patch.
            itemsize: bytes of a number in matrix products.
        """
        return 0

    def learn_table(
        self, texts: Sequence[bytes], config: PatchingConfig, target: float
    ) -> tuple[PatchingConfig, Tensor] | None:
        """The table of a new model with the patching rule "lookup"; None: it learns as ever.

        Args:
            texts: to learn it from.
            config: of the rule; its threshold is what is asked for, beside the table.
            target: bytes per patch, of the recipe.
        """
        return None

    def begin(
        self, model: LanguageModel, recipe: Recipe, sources: Sequence[Source], new: bool
    ) -> None:
        """Change a new model, and get ready to train.

        Args:
            model: on the device to train on, not yet divided among processes.
            recipe: of the training, resolved.
            sources: text to train on.
            new: whether the model is at its start, rather than that of a checkpoint.
        """

    def lr_shares(self) -> Mapping[str, float]:
        """What names of parameters begin with, and the share of the learning rate that they get."""
        return {}

    def before_step(self, model: nn.Module, progress: float) -> None:
        """Called before each step.

        Args:
            progress: share of the training that is done, 0..1.
        """

    def lay_out(self, model: LanguageModel, ready: Ready) -> Ready:
        """A batch as this step reads it, where that is not as the model does.

        Args:
            ready: as the model does; targets and their order stay.
        """
        return ready

    def predict(self, model: LanguageModel, ready: Ready) -> Tensor:
        """Logits after every position of a batch that was laid out  # [N, V]."""
        return model.predict(ready)

    def extra_loss(self, batch: Batch, logits: Tensor, targets: Tensor) -> Extra:
        """What a step minimises besides the cross-entropy, which is reported without it.

        Args:
            batch: on the CPU, N ids.
            logits: of the model, on its device  # [N, V]
            targets: what comes next, PAD where there is nothing to predict  # [N]
        """
        return Extra()
