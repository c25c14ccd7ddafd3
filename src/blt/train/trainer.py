"""One training step for every kind of model, and the state to take it up again exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Muon, Optimizer

from blt import vocab
from blt.checkpoint.folders import TRAINER
from blt.data.loader import Loader
from blt.data.prefetch import Prefetch
from blt.errors import UserError, named
from blt.lm import LanguageModel
from blt.machine.precision import autocast, choose_dtype
from blt.model.language import Batch
from blt.train.hooks import Hooks
from blt.train.meter import Meter
from blt.train.optim import LR_SHARE, RowwiseAdam, clip_gradients, learning_rate, optimizers
from blt.train.parallel import Parallel, last_backward
from blt.train.recipe import TrainConfig
from blt.train.run import RunFolder, TrainerState
from blt.train.state import RNG, TrainerValues

USUAL_STEPS = 50  # over which the usual norm of the gradient is averaged


@dataclass(frozen=True)
class Step:
    """What one step did, in all processes together."""

    nats: float  # mean cross-entropy
    patch_size: float | None  # mean bytes per patch, or token; None: a model without either
    grad_norm: float  # before clipping
    lr: float
    num_bytes: int
    flops: float  # the entropy model's included
    seconds: float
    waited: float  # seconds of these that went by waiting for batches
    skipped: bool  # loss or gradient not finite, or exploding: the weights stayed as they were


class _Loss(NamedTuple):
    """What one batch said."""

    minimised: Tensor
    nats: Tensor  # sum of cross-entropies
    patch_size: float | None  # mean
    extra_flops: float  # of the hooks


class Trainer:
    """Model, optimisers and batches, moved on step by step.

    Args:
        model: a BLT (its entropy model stays frozen) or a byte transformer, divided already if
            several processes train it.
        loader: batches; its position is part of the state.
        config: optimiser and precision.
        parallel: the processes that train together.
        hooks: what each step does besides; they have begun.
    """

    def __init__(
        self,
        model: LanguageModel,
        loader: Loader,
        config: TrainConfig,
        parallel: Parallel | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.hooks = hooks or Hooks()
        self.model, self.loader, self.config = model, Prefetch(loader), config
        self.parallel = parallel or Parallel()
        shares = self.hooks.lr_shares()
        self.optimizers: list[Optimizer] = optimizers(
            model, config.lr, config.betas, config.weight_decay, config.optimizer, shares
        )
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.dtype = choose_dtype(config.precision, model.device)
        self.meter = Meter(model, loader.context_bytes, self.dtype, self.parallel.world)
        self.steps, self.bytes_seen, self.flops, self.skipped = 0, 0, 0.0, 0
        self._skipped_in_a_row = 0
        self._usual_norm = 0.0  # mean over the last steps that were taken

    @property
    def step_bytes(self) -> int:
        """Ids of one step, in all processes together."""
        return self.loader.loader.batch_bytes * self.config.accumulate * self.parallel.world

    def step(self, progress: float) -> Step:
        """Take one step.

        Args:
            progress: share of the training that is done, which sets the learning rate.

        Raises:
            UserError: too many steps in a row were skipped.
        """
        config, start, waited = self.config, time.monotonic(), self.loader.waited
        self.hooks.before_step(self.model, progress)
        batches = [next(self.loader) for _ in range(config.accumulate)]
        waited = self.loader.waited - waited
        decay = config.decay if config.schedule == "wsd" else None
        lr = learning_rate(progress, config.lr, config.warmup, config.min_lr_ratio, decay)
        nats, patch_size, num_bytes, extra_flops = self._gradients(batches)
        norm = clip_gradients(self.parameters, config.clip) if math.isfinite(nats) else math.nan
        taken = math.isfinite(norm) and not self._explodes(norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get(LR_SHARE, 1.0)
            if taken:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        per_byte = self.meter.flops_per_byte(patch_size) + self.meter.entropy_flops_per_byte
        flops = per_byte * num_bytes + extra_flops
        self._count(num_bytes, flops, norm, taken)
        seconds = time.monotonic() - start
        return Step(nats, patch_size, norm, lr, num_bytes, flops, seconds, waited, not taken)

    def _gradients(self, batches: list[Batch]) -> tuple[float, float | None, int, float]:
        """Add up gradients of the mean over all targets; mean nats, patch size, bytes, and the
        hooks' FLOPs."""
        world = self.parallel.world
        counts = [sum(b.num_targets for b in batches), sum(b.num_bytes for b in batches)]
        targets, num_bytes = self.parallel.sums(counts)
        nats, sizes, extra_flops = 0.0, [], 0.0
        for number, batch in enumerate(batches, 1):
            last_backward(self.model, number == len(batches))
            loss = self._loss(batch.to(self.model.device))
            nats += loss.nats.item()
            extra_flops += loss.extra_flops
            sizes.append(loss.patch_size)
            # FSDP2 takes the mean over processes.
            (loss.minimised * (world / targets)).backward()  # type: ignore[no-untyped-call]
        size = sum(size or 0.0 for size in sizes)
        nats, patches, extra_flops = self.parallel.sums([nats, size, extra_flops])
        patch_size = patches / len(sizes) / world or None
        return nats / targets, patch_size, int(num_bytes), extra_flops

    def _loss(self, batch: Batch) -> _Loss:
        with autocast(self.model.device, self.dtype):
            logits, targets, patch_size = self.model.predict(batch)
        nats = F.cross_entropy(logits.float(), targets, ignore_index=vocab.PAD, reduction="sum")
        extra = self.hooks.extra_loss(batch, logits, targets)
        return _Loss(nats + extra.loss, nats, patch_size, extra.flops)

    def _explodes(self, norm: float) -> bool:
        most = self.config.most_norm
        return most is not None and self._usual_norm > 0 and norm > most * self._usual_norm

    def _count(self, num_bytes: int, flops: float, norm: float, taken: bool) -> None:
        self.steps += 1
        self.bytes_seen += num_bytes
        self.flops += flops
        self.skipped += not taken
        self._skipped_in_a_row = 0 if taken else self._skipped_in_a_row + 1
        if taken:
            share = 1 / min(self.steps - self.skipped, USUAL_STEPS)
            self._usual_norm += share * (norm - self._usual_norm)
        if self._skipped_in_a_row >= self.config.most_skipped:
            raise UserError(
                f"loss or gradient was not finite, or exploded, in {self._skipped_in_a_row} steps "
                f"in a row, up to step {self.steps}; the last checkpoint is from before: try a "
                "lower train.lr, or train.precision=float32"
            )

    def state(self) -> TrainerState:
        """Everything but the model's weights; tensors may be divided."""
        tensors = {RNG: torch.get_rng_state()}
        for index, optimizer in enumerate(self.optimizers):
            for number, entries in optimizer.state_dict()["state"].items():
                for name, tensor in entries.items():
                    tensors[f"{index}.{number}.{name}"] = tensor.detach()
        values = {
            "step": self.steps,
            "bytes_seen": self.bytes_seen,
            "flops": self.flops,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
            "usual_norm": self._usual_norm,
            "loader": self.loader.state(),
            "documents": self.loader.loader.fingerprint,
        }
        return TrainerState(tensors, values)

    def restore(self, run: RunFolder) -> None:
        """Go on exactly where :meth:`state` was taken; with another number of processes, in the
        same place of the text.

        Raises:
            UserError: the checkpoint is damaged, or belongs to other text or another model.
        """
        values, where = run.trainer_values(), str(run.checkpoint / TRAINER)
        TrainerValues.check(values, where)
        if values["documents"] != self.loader.loader.fingerprint:
            raise UserError(
                "the text to train on has changed since the checkpoint; restore it, or start "
                "another run"
            )
        templates = {RNG: torch.get_rng_state(), **dict(self._templates())}
        tensors = run.trainer_tensors(templates)
        with named(where):
            _set_rng(tensors.pop(RNG))
            self.loader.restore(values["loader"])
        for index, optimizer in enumerate(self.optimizers):
            entries: dict[int, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                owner, number, key = name.split(".")
                if int(owner) == index:
                    entries.setdefault(int(number), {})[key] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
        self.steps, self.bytes_seen = values["step"], values["bytes_seen"]
        self.flops = values.get("flops", 0.0)
        self.skipped, self._skipped_in_a_row = values["skipped"], values["skipped_in_a_row"]
        self._usual_norm = values["usual_norm"]

    def _templates(self) -> Iterator[tuple[str, Tensor]]:
        """What the state of every parameter looks like, under the names of :meth:`state`."""
        for index, optimizer in enumerate(self.optimizers):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for number, parameter in enumerate(parameters):
                for name, tensor in _new_state(optimizer, parameter).items():
                    yield f"{index}.{number}.{name}", tensor


def _set_rng(state: Tensor) -> None:
    try:
        torch.set_rng_state(state)
    except RuntimeError as error:
        raise UserError(f"rng: damaged ({str(error).splitlines()[0]})") from None


def _new_state(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    if isinstance(optimizer, RowwiseAdam):
        return RowwiseAdam.new_state(parameter.detach())
    zeros = torch.zeros_like(parameter.detach())
    if isinstance(optimizer, Muon):
        return {"momentum_buffer": zeros}
    return {
        "step": torch.zeros((), dtype=torch.float32, device=zeros.device),
        "exp_avg": zeros,
        "exp_avg_sq": zeros.clone(),
    }
