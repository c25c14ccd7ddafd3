"""What a training that byteifies does besides: layers taken over, two stages, and a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from torch import Tensor, nn

from blt.byteify.start import LAYERS, take_layers, with_layers_of
from blt.byteify.teacher import Teacher, load_teacher
from blt.checkpoint.folders import Checkpoint
from blt.checkpoint.open import open_token_model
from blt.data.text import Source
from blt.errors import require
from blt.lm import BLT, LanguageModel
from blt.machine.precision import autocast, choose_dtype
from blt.model.config import Config
from blt.model.language import Batch
from blt.patching.patcher import SAMPLE_BYTES
from blt.texts.pieces import BATCH_BYTES, sample
from blt.train.hooks import Extra, Hooks
from blt.train.recipe import ByteifyConfig, Recipe


def hooks_of(recipe: Recipe) -> Hooks:
    """What the training of ``recipe`` does besides; nothing, without a section byteify."""
    return Hooks() if recipe.byteify is None else Byteify(recipe.byteify)


class Byteify(Hooks):
    """The hooks of a recipe's section byteify."""

    def __init__(self, config: ByteifyConfig) -> None:
        self.config = config
        self.teacher: Teacher | None = None

    @cached_property
    def source(self) -> Checkpoint:
        """The token model.

        Raises:
            UserError: none there, or one whose layers are not ours.
        """
        require(
            self.config.source != "",
            "byteify.source: name a token model, or run `blt byteify SOURCE RECIPE --run FOLDER`",
        )
        return open_token_model(self.config.source)

    def resolve(self, recipe: Recipe) -> Recipe:
        """The recipe with the shape that its source's layers have."""
        shape = with_layers_of(recipe.model or Config(), self.source.config)
        return replace(recipe, model=shape)

    def begin(
        self, model: LanguageModel, recipe: Recipe, sources: Sequence[Source], new: bool
    ) -> None:
        if new:
            assert isinstance(model, BLT)
            take_layers(model, self.source, _texts(sources, recipe))
        self.dtype = choose_dtype(recipe.train.precision, model.device)
        if self.config.distill:
            shape, context = self.source.config, recipe.data.context_bytes
            self.teacher = load_teacher(self.config.source, shape, context, model.device)

    def lr_shares(self) -> Mapping[str, float]:
        return {LAYERS: self.config.global_lr}

    def before_step(self, model: nn.Module, progress: float) -> None:
        """Let the global transformer learn, or leave it as it is."""
        learns = progress >= self.config.frozen
        for name, parameter in model.named_parameters():
            if name.startswith(LAYERS):
                parameter.requires_grad_(learns)

    def extra_loss(self, batch: Batch, logits: Tensor, targets: Tensor) -> Extra:
        if self.teacher is None:
            return Extra()
        with autocast(logits.device, self.dtype):
            taught = self.teacher.read(batch.documents)
        return Extra(self.config.distill * taught.excess(logits, targets), taught.flops)


def _texts(sources: Sequence[Source], recipe: Recipe) -> list[bytes]:
    """A little of the training text."""
    texts = [text for source in sources for text in source.sample(SAMPLE_BYTES)]
    return sample(texts, recipe.data.context_bytes, BATCH_BYTES)
