"""One training step for every kind of model, and the state to take it up again exactly."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from blt import vocab
from blt.data.loader import Batch, Loader
from blt.errors import UserError
from blt.lm import BLT, LanguageModel
from blt.train.calibration import batch_patch_size
from blt.train.optim import clip_gradients, learning_rate, optimizers
from blt.train.precision import autocast, choose_dtype
from blt.train.recipe import TrainConfig
from blt.train.run import TrainerState

MOST_SKIPPED = 10  # steps in a row without a finite loss and gradient
RNG = "rng"


@dataclass(frozen=True)
class Step:
    """What one step did."""

    nats: float  # mean cross-entropy
    patch_size: float | None  # mean bytes per patch; None for a model without patches
    grad_norm: float  # before clipping
    lr: float
    num_bytes: int
    seconds: float
    skipped: bool  # loss or gradient not finite: the weights stayed as they were


class Trainer:
    """Model, optimisers and batches, moved on step by step.

    Args:
        model: a BLT (its entropy model stays frozen) or a byte transformer.
        loader: batches; its position is part of the state.
        config: optimiser and precision.
    """

    def __init__(self, model: LanguageModel, loader: Loader, config: TrainConfig) -> None:
        self.model, self.loader, self.config = model, loader, config
        self.optimizers: list[Optimizer] = optimizers(
            model, config.lr, config.betas, config.weight_decay
        )
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.dtype = choose_dtype(config.precision, model.device)
        self.steps, self.bytes_seen, self.skipped = 0, 0, 0
        self._skipped_in_a_row = 0

    def step(self, progress: float) -> Step:
        """Take one batch.

        Args:
            progress: share of the training that is done, which sets the learning rate.

        Raises:
            UserError: too many steps in a row without a finite loss and gradient.
        """
        config, start = self.config, time.monotonic()
        batch = next(self.loader).to(self.model.device)
        lr = learning_rate(progress, config.lr, config.warmup, config.min_lr_ratio)
        loss, patch_size = self._loss(batch)
        nats, norm = loss.item(), math.nan
        if math.isfinite(nats):
            loss.backward()  # type: ignore[no-untyped-call]
            norm = clip_gradients(self.parameters, config.clip)
        finite = math.isfinite(norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            if finite:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._count(batch.num_bytes, finite)
        seconds = time.monotonic() - start
        return Step(nats, patch_size, norm, lr, batch.num_bytes, seconds, not finite)

    def _loss(self, batch: Batch) -> tuple[Tensor, float | None]:
        """Mean cross-entropy in nats, and the mean patch size."""
        patch_size = None
        with autocast(self.model.device, self.dtype):
            if isinstance(self.model, BLT):
                packed = self.model.pack(batch.documents)
                patch_size = batch_patch_size(packed)
                logits = self.model(packed)
            else:
                logits = self.model.packed_logits(batch.documents)
        return F.cross_entropy(logits.float(), batch.targets, ignore_index=vocab.PAD), patch_size

    def _count(self, num_bytes: int, finite: bool) -> None:
        self.steps += 1
        self.bytes_seen += num_bytes
        self.skipped += not finite
        self._skipped_in_a_row = 0 if finite else self._skipped_in_a_row + 1
        if self._skipped_in_a_row >= MOST_SKIPPED:
            raise UserError(
                f"loss or gradient was not finite in {MOST_SKIPPED} steps in a row, up to step "
                f"{self.steps}; the last checkpoint is from before: try a lower train.lr, or "
                "train.precision=float32"
            )

    def state(self) -> TrainerState:
        """Everything but the model's weights."""
        tensors = {RNG: torch.get_rng_state()}
        for index, optimizer in enumerate(self.optimizers):
            for number, entries in optimizer.state_dict()["state"].items():
                for name, tensor in entries.items():
                    tensors[f"{index}.{number}.{name}"] = tensor.detach().cpu().contiguous()
        values = {
            "step": self.steps,
            "bytes_seen": self.bytes_seen,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
            "loader": self.loader.state(),
            "documents": self.loader.fingerprint,
        }
        return TrainerState(tensors, values)

    def restore(self, state: TrainerState) -> None:
        """Go on exactly where :meth:`state` was taken.

        Raises:
            UserError: the state belongs to other text or another model.
        """
        values = state.values
        if values["documents"] != self.loader.fingerprint:
            raise UserError(
                "the text to train on has changed since the checkpoint; restore it, or start "
                "another run"
            )
        torch.set_rng_state(state.tensors[RNG])
        for index, optimizer in enumerate(self.optimizers):
            _restore_optimizer(optimizer, state.tensors, f"{index}.")
        self.steps, self.bytes_seen = values["step"], values["bytes_seen"]
        self.skipped, self._skipped_in_a_row = values["skipped"], values["skipped_in_a_row"]
        self.loader.restore(values["loader"])


def _restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    entries: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            number, key = name.removeprefix(prefix).split(".")
            entries.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
