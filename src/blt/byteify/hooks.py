"""What a training that byteifies does besides: layers and cuts taken over, and two stages.

First the layers stay as they are, and read what they read in the source: embeddings of tokens, at
patches that are cut where its tokens end. The encoder learns to give these embeddings, and the
decoder to tell the next byte from what the layers make of them. Then the layers read the encoder's
patches, cut by the model's own rule, and all of it learns from text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from blt import vocab
from blt.byteify.cuts import learn_table
from blt.byteify.embeddings import misfits, take_embeddings
from blt.byteify.start import LAYERS, scale_patches, take_layers, take_norm, with_layers_of
from blt.byteify.teacher import Lesson, Teacher
from blt.checkpoint.folders import Checkpoint
from blt.checkpoint.open import open_token_model
from blt.data.text import Source
from blt.errors import UserError, require
from blt.evals.models import Reader, reader_of
from blt.files.hub import local_folder
from blt.lm import BLT, LanguageModel
from blt.machine.precision import autocast, choose_dtype
from blt.model.config import Config
from blt.model.flops import flops_per_byte
from blt.model.language import Batch, Ready
from blt.model.packing import Spans
from blt.patching import PatchingConfig
from blt.patching.patcher import SAMPLE_BYTES
from blt.tokens.tokenizer import ByteTokenizer
from blt.train.hooks import Extra, Hooks
from blt.train.mix import training_sample
from blt.train.recipe import Recipe
from blt.train.sections import ByteifyConfig

FEW = 8  # texts that sizes are measured on


def hooks_of(recipe: Recipe) -> Hooks:
    """What the training of ``recipe`` does besides; nothing, without a section byteify."""
    return Hooks() if recipe.byteify is None else Byteify(recipe.byteify)


class Byteify(Hooks):
    """The hooks of a recipe's section byteify."""

    def __init__(self, config: ByteifyConfig) -> None:
        self.config = config
        self.teacher: Teacher | None = None  # of the first stage; None: there is none
        self.teaches = False  # in this step
        self.lesson: Lesson | None = None  # of the batch that is being read
        self.patches: Tensor | None = None  # [P, d] that the encoder gave for it
        self.hidden: Tensor | None = None  # [P, d] that the layers gave

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

    @cached_property
    def reader(self) -> Reader:
        """How the token model reads text.

        Raises:
            UserError: a tokenizer that is no byte-level BPE, whose tokens are not known as bytes.
        """
        reader = reader_of(local_folder(self.config.source))
        if not isinstance(reader.tokenizer, ByteTokenizer):
            raise UserError(
                f"{self.config.source}: byteify needs a tokenizer.json of a byte-level BPE; for "
                "another set byteify.frozen to 0, and a patching rule other than 'lookup'"
            )
        return reader

    @property
    def begins_frozen(self) -> bool:
        """Is there a first stage?"""
        return self.config.frozen > 0 and not self.config.scratch

    def resolve(self, recipe: Recipe) -> Recipe:
        """The recipe with the shape that its source's layers have."""
        shape = with_layers_of(recipe.model or Config(), self.source.config)
        if recipe.learns_table:
            require(
                recipe.entropy_model is None,
                "entropy_model: the source's tokenizer teaches the table; leave it out",
            )
            require(
                not shape.patching.fair_scripts,
                "model.patching.fair_scripts: the table cuts where the source's tokens end",
            )
        if self.begins_frozen:
            require(
                recipe.train.stale_patches == 0,
                "train.stale_patches: only with byteify.frozen=0, where text alone is learned from",
            )
            require(
                not shape.patching.is_learned,
                "byteify.frozen: a router learns nothing before the layers do; set it to 0",
            )
            if why := misfits(shape):
                raise UserError(f"{why}; or set byteify.frozen to 0")
        if recipe.learns_table or self.begins_frozen:
            assert self.reader  # or refused by now
        return replace(recipe, model=shape)

    def memory(self, batch_bytes: int, patch_size: float, itemsize: int) -> int:
        """Of the teacher of the first stage, a patch for each of its tokens."""
        if not self.begins_frozen:
            return 0
        tokens = round(batch_bytes / patch_size)
        saying = self.config.distill > 0
        said = Teacher.saying_memory(self.source, tokens, itemsize) if saying else 0
        return Teacher.memory(self.source) + said

    def learn_table(
        self, texts: Sequence[bytes], config: PatchingConfig, target: float
    ) -> tuple[PatchingConfig, Tensor]:
        assert isinstance(self.reader.tokenizer, ByteTokenizer)
        documents = [vocab.encode(text) for text in texts]
        return learn_table(self.reader.tokenizer, documents, target, config)

    def begin(
        self, model: LanguageModel, recipe: Recipe, sources: Sequence[Source], new: bool
    ) -> None:
        if self.config.scratch:
            return
        assert isinstance(model, BLT)
        self.dtype = choose_dtype(recipe.train.precision, model.device)
        self.shape, self.context_bytes = model.config, recipe.data.context_bytes
        if self.begins_frozen:
            self.teacher = Teacher(self.reader, self.source, model.device)
        if new:
            take_layers(model, self.source)
            texts = _texts(sources, recipe)
            if self.teacher is None:
                scale_patches(model, self.source, texts[:FEW])
            else:
                take_embeddings(model, self.teacher, texts)
            take_norm(model, self.source, texts[:FEW])

    def lr_shares(self) -> Mapping[str, float]:
        return {} if self.config.scratch else {LAYERS: self.config.global_lr}

    def before_step(self, model: nn.Module, progress: float) -> None:
        """Let the global transformer learn, or leave it as it is."""
        self.teaches = self.begins_frozen and progress < self.config.frozen
        for name, parameter in model.named_parameters():
            if name.startswith(LAYERS):
                parameter.requires_grad_(not self.teaches)

    def lay_out(self, model: LanguageModel, ready: Ready) -> Ready:
        """In the first stage, cut where the source's tokens end."""
        if not self.teaches:
            return ready
        assert self.teacher is not None
        self.lesson = self.teacher.lesson(ready.batch.documents)
        # The same bytes, so the rows of their n-grams are grouped already.
        packed = replace(self.lesson.packed, ngrams=ready.inputs[0].ngrams)
        return ready._replace(inputs=(packed,), patch_size=packed.mean_patch_size)

    def predict(self, model: LanguageModel, ready: Ready) -> Tensor:
        if not self.teaches:
            return model.predict(ready)
        assert isinstance(model, BLT)
        with self._reading_tokens(model):
            return model.predict(ready)

    @contextmanager
    def _reading_tokens(self, model: BLT) -> Iterator[None]:
        """Let the layers read embeddings of tokens, and keep what the encoder gave instead."""
        assert self.lesson is not None
        embeddings = self.lesson.embeddings
        stack = model.global_transformer.transformer
        compiled = vars(model).pop("whole", None)  # it would not see what is changed here

        def reads(_: nn.Module, given: tuple[Tensor, Spans, Any]) -> tuple[Any, ...]:
            self.patches, *rest = given
            return embeddings.to(self.patches.dtype), *rest

        def gives(_: nn.Module, __: Any, hidden: Tensor) -> None:
            self.hidden = hidden

        watched = (stack.register_forward_pre_hook(reads), stack.register_forward_hook(gives))
        try:
            yield
        finally:
            for watch in watched:
                watch.remove()
            if compiled is not None:
                model.whole = compiled

    def extra_loss(self, batch: Batch, logits: Tensor, targets: Tensor) -> Extra:
        """How far patches are from embeddings, and bytes' probabilities from the source's."""
        if not self.teaches:
            return Extra()
        assert self.teacher is not None
        assert self.lesson is not None
        assert self.patches is not None
        assert self.hidden is not None
        wanted, found = self.lesson.embeddings, self.patches.float()
        loss = (found - wanted).square().sum() / wanted.square().mean(0).sum()
        flops = -2 * self._layers_flops(batch)  # a backward pass costs two forward passes
        if self.config.distill:
            with autocast(logits.device, self.dtype):
                taught = self.teacher.says(self.lesson, self.hidden)
            loss = loss + self.config.distill * taught.excess(logits, targets)
            flops += self.teacher.head_flops * len(wanted)
        self.lesson = self.patches = self.hidden = None
        return Extra(loss, flops)

    def _layers_flops(self, batch: Batch) -> float:
        """Of a forward pass of the global transformer."""
        assert self.lesson is not None
        size = max(1.0, self.lesson.packed.mean_patch_size)
        return flops_per_byte(self.shape, size, self.context_bytes).global_ * batch.num_bytes


def _texts(sources: Sequence[Source], recipe: Recipe) -> list[Tensor]:
    """A little of the training text, ids [T] each."""
    texts = training_sample(sources, recipe.data.weights, SAMPLE_BYTES, recipe.data.context_bytes)
    return [vocab.encode(text) for text in _mixed(texts)]


def _mixed(texts: list[bytes]) -> list[bytes]:
    """In another order, in which sources do not lie one behind the other."""
    return [texts[index] for index in np.random.default_rng(0).permutation(len(texts))]
