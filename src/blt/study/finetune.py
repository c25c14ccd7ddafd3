"""Teach a trained model to answer questions, and see after how many steps it can."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch

from blt import vocab
from blt.errors import UserError
from blt.evals.characters import END, Question
from blt.lm import LanguageModel, TokenLM
from blt.machine.precision import autocast, choose_dtype
from blt.model.language import Batch
from blt.model.routing import routes_of
from blt.texts.marked import encode, marked, targets
from blt.tokens.splitting import SplittingTokenizer
from blt.train.compression import Compression
from blt.train.meter import Meter
from blt.train.optim import optimizers
from blt.train.recipe import Recipe
from blt.train.update import Guard, total_norm, update

WARM = 20  # steps in which the rate rises; then it stays, so that more steps change none before


@dataclass(frozen=True)
class Lesson:
    """How a model is taught."""

    lr: float
    steps: int  # at most; it ends before them once all has reached the goal
    questions: int  # of a step
    every: int  # steps from one look to the next
    goal: float = 0.9  # share of right answers
    split: float = 0.0  # share of tokens that are split while it learns; of token models
    seed: int = 0  # of these


class Look(NamedTuple):
    """What a model can do after some steps."""

    step: int
    bytes: int  # of the questions so far, prompts and answers
    flops: float  # forward and backward, by the paper's formula; the looks themselves are left out
    nats: float | None  # mean loss of the steps since the last look; None: of a first one
    right: dict[str, float]  # share of right answers to held-out questions, by kind

    @property
    def mean(self) -> float:
        """Share of right answers over all kinds, each counted alike."""
        return statistics.fmean(self.right.values())


def finetune(
    model: LanguageModel,
    questions: Iterator[Question],
    heldout: Sequence[Question],
    lesson: Lesson,
    recipe: Recipe,
) -> Iterator[Look]:
    """Train ``model`` on the answers, with fresh optimisers, and look at it again and again.

    The loss is that of answers alone: prompts are read, not learned.

    Args:
        questions: to learn from, in this order.
        heldout: to be answered at each look; greedily, and right to the byte.
        recipe: of the model's training: optimisers, precision, and how far a model that cuts its
            text by itself is to cut it.

    Yields:
        a look before the first step, after every ``lesson.every`` steps, and after the last.

    Raises:
        UserError: tokens are to be split of a model without any.
    """
    teacher = _Teacher(model, lesson, recipe)
    looks: list[Look] = []
    while True:
        looks.append(Look(*teacher.counts(), answered(model, heldout)))
        yield looks[-1]
        left = lesson.steps - teacher.steps
        if not left or all(until(looks, lesson.goal, kind) for kind in (None, *looks[0].right)):
            return
        with splitting(model, lesson.split, lesson.seed + teacher.steps):
            for _ in range(min(left, lesson.every)):
                teacher.step(list(islice(questions, lesson.questions)))


def until(looks: Sequence[Look], goal: float, kind: str | None = None) -> Look | None:
    """The first look at which a kind (None: the mean of all) has reached the goal."""
    shares = [look.mean if kind is None else look.right[kind] for look in looks]
    return next((look for look, share in zip(looks, shares, strict=True) if share >= goal), None)


def answered(model: LanguageModel, questions: Sequence[Question]) -> dict[str, float]:
    """Share of questions of each kind that the model, as it writes greedily, answers."""
    longest = max(len(question.answer) for question in questions)
    written = model.generate(
        [question.prompt for question in questions], max_bytes=longest, stop=END
    )
    right: dict[str, list[bool]] = {}
    for question, found in zip(questions, written, strict=True):
        ended = found.finish_reason == "stop" and found.data + END == question.answer
        right.setdefault(question.kind, []).append(ended)
    return {kind: sum(of) / len(of) for kind, of in right.items()}


def batch_of(questions: Sequence[Question]) -> Batch:
    """Questions as documents, in which only the bytes of answers are to be predicted."""
    texts = [marked([(one.prompt, False), (one.answer, True)]) for one in questions]
    return Batch([encode(text) for text in texts], torch.cat([targets(text) for text in texts]))


@contextmanager
def splitting(model: LanguageModel, share: float, seed: int) -> Iterator[None]:
    """While this lasts, some tokens are read as two.

    Raises:
        UserError: a model without tokens.
    """
    if not share:
        yield
        return
    if not isinstance(model, TokenLM):
        raise UserError(f"a {model.kind} model has no tokens to split")
    whole = model.tokenizer
    model.tokenizer = SplittingTokenizer(whole, share, seed)
    try:
        yield
    finally:
        model.tokenizer = whole


class _Teacher:
    """Steps of one fine-tuning."""

    def __init__(self, model: LanguageModel, lesson: Lesson, recipe: Recipe) -> None:
        self.model, self.lesson, self.clip = model.train(), lesson, recipe.train.clip
        train = recipe.train
        self.optimizers = optimizers(
            model, lesson.lr, train.betas, train.weight_decay, train.optimizer
        )
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.guard = Guard.new(model.device, None)
        self.dtype = choose_dtype(train.precision, model.device)
        self.compression = Compression.of(recipe)
        self.steps, self.bytes_seen, self.flops = 0, 0, 0.0
        self._nats: list[torch.Tensor] = []

    def step(self, questions: Sequence[Question]) -> None:
        """Learn from some questions."""
        with torch.no_grad():
            ready = self.model.ready(batch_of(questions))
        with autocast(self.model.device, self.dtype), routes_of(self.model) as routes:
            logits = self.model.predict(ready)
        pressed = self.compression.press(routes, progress=1.0)
        nats = self.model.loss(logits, ready.targets) / (ready.targets != vocab.PAD).sum()
        (nats + pressed.loss).backward()
        norm = total_norm(self.parameters, rows_once=True)
        self.steps += 1
        update(
            self.optimizers,
            self.parameters,
            lr=self.lesson.lr * min(1.0, self.steps / WARM),
            clip=self.clip,
            norm=norm,
            out=self.guard.leaves_out(nats.detach(), norm),
        )
        self._nats.append(nats.detach())
        self._count(ready.batch, ready.patch_size or pressed.patch_size)

    def _count(self, batch: Batch, patch_size: float | None) -> None:
        length = max(1, batch.num_bytes // len(batch.documents))
        meter = Meter(self.model, length, self.dtype)
        per_byte = meter.flops_per_byte(patch_size) + meter.entropy_flops_per_byte
        self.bytes_seen += batch.num_bytes
        self.flops += per_byte * batch.num_bytes

    def counts(self) -> tuple[int, int, float, float | None]:
        """Steps, bytes and FLOPs so far, and the loss since this was asked before."""
        nats = torch.stack(self._nats) if self._nats else torch.empty(0)
        nats = nats[nats.isfinite()]  # the guard has left out steps without a number
        self._nats.clear()
        mean = float(nats.mean()) if len(nats) else None
        return self.steps, self.bytes_seen, self.flops, mean
