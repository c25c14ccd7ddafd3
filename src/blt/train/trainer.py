"""One training step for every kind of model, and the state to take it up again exactly."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Muon, Optimizer

from blt.checkpoint.folders import TRAINER
from blt.data.loader import Loader
from blt.errors import UserError, first_line, named
from blt.lm import LanguageModel
from blt.machine.hardware import device_name
from blt.machine.precision import autocast, choose_dtype, settled_bfloat16
from blt.model.language import Ready
from blt.model.routing import routes_of
from blt.train.compression import Compression
from blt.train.feed import Feed
from blt.train.hooks import Hooks
from blt.train.meter import Meter
from blt.train.optim import RowwiseAdam, learning_rate, optimizers
from blt.train.parallel import Parallel, last_backward
from blt.train.run import RunFolder, TrainerState
from blt.train.sections import TrainConfig
from blt.train.state import RNG, TrainerValues
from blt.train.update import Guard, RowGradients, total_norm, update


@dataclass
class Step:
    """What one step did, in all processes together."""

    found: Tensor  # [3] float64: nats, norm, left out; on the device until somebody reads it
    patch_size: float | None  # mean bytes per patch, or token; None: a model without either
    lr: float
    num_bytes: int
    flops: float  # the entropy model's included
    seconds: float
    waited: float  # seconds of these that went by waiting for batches

    @property
    def nats(self) -> float:
        """Mean cross-entropy."""
        return self.found[0].item()

    @property
    def grad_norm(self) -> float:
        """Before clipping."""
        return self.found[1].item()

    @property
    def skipped(self) -> bool:
        """Loss or gradient not finite, or exploding: the weights stayed as they were."""
        return bool(self.found[2])


def read(steps: Sequence[Step]) -> None:
    """Bring what steps found to the host, all of it at once."""
    if steps:
        found = torch.stack([step.found for step in steps]).cpu()
        for step, values in zip(steps, found, strict=True):
            step.found = values


class _Loss(NamedTuple):
    """What one batch said."""

    minimised: Tensor
    nats: Tensor  # sum of cross-entropies
    extra_flops: float  # of the hooks
    patch_size: float | None  # mean bytes per patch, or token; None: a model without either


class DivergedError(UserError):
    """So many steps in a row were left out that a training has given up."""


class Trainer:
    """Model, optimisers and batches, moved on step by step.

    On a GPU a step only says what is to be done: nothing in it waits for what it computes.

    Args:
        model: a BLT (its entropy model stays frozen) or a byte transformer, divided already if
            several processes train it.
        loader: batches; its position is part of the state.
        config: optimiser and precision.
        parallel: the processes that train together.
        hooks: what each step does besides; they have begun.
        compression: how far a model that learns to cut its text cuts it.
    """

    def __init__(
        self,
        model: LanguageModel,
        loader: Loader,
        config: TrainConfig,
        parallel: Parallel | None = None,
        hooks: Hooks | None = None,
        compression: Compression | None = None,
    ) -> None:
        self.hooks, self.compression = hooks or Hooks(), compression or Compression()
        self.model, self.config = model, config
        self.parallel = parallel or Parallel()
        shares = self.hooks.lr_shares()
        self.optimizers: list[Optimizer] = optimizers(
            model, config.lr, config.betas, config.weight_decay, config.optimizer, shares
        )
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.dtype = choose_dtype(config.precision, model.device)
        feed = Feed(model, loader, self.dtype, config.stale_patches)
        self.feed, self.loader = feed, feed.ahead
        self.meter = Meter(model, loader.context_bytes, self.dtype, self.parallel.world)
        self.guard = Guard.new(model.device, config.most_norm)
        self.steps, self.bytes_seen, self.flops = 0, 0, 0.0

    @property
    def step_bytes(self) -> int:
        """Ids of one step, in all processes together."""
        return self.loader.loader.batch_bytes * self.config.accumulate * self.parallel.world

    @property
    def passes(self) -> float:
        """How often the text has been read: of several sources, the one that was read least."""
        at, sources = self.loader.state()["sources"], self.loader.loader.sources
        return min(p["epoch"] + p["index"] / len(s) for p, s in zip(at, sources, strict=True))

    @property
    def skipped(self) -> int:
        """Steps that were left out; read from the device."""
        return int(self.guard.counts[1])

    def step(self, progress: float) -> Step:
        """Take one step.

        Args:
            progress: share of the training that is done, which sets the learning rate.
        """
        config, start, waited = self.config, time.monotonic(), self.loader.waited
        self.hooks.before_step(self.model, progress)
        batches = [next(self.feed) for _ in range(config.accumulate)]
        waited = self.loader.waited - waited
        decay = config.decay if config.schedule == "wsd" else None
        warmup = 0.0 if config.steps == 1 else config.warmup  # the only step would have a rate of 0
        lr = learning_rate(progress, config.lr, warmup, config.min_lr_ratio, decay)
        nats, patch_size, num_bytes, extra_flops = self._gradients(batches, progress)
        norm = total_norm(self.parameters, rows_once=True)
        out = self.guard.leaves_out(nats, norm)
        update(self.optimizers, self.parameters, lr=lr, clip=config.clip, norm=norm, out=out)
        per_byte = self.meter.flops_per_byte(patch_size) + self.meter.entropy_flops_per_byte
        flops = per_byte * num_bytes + extra_flops
        self.steps += 1
        self.bytes_seen += num_bytes
        self.flops += flops
        found = torch.stack([nats.double(), norm.double(), out.double()])
        seconds = time.monotonic() - start
        return Step(found, patch_size, lr, num_bytes, flops, seconds, waited)

    def _gradients(
        self, batches: list[Ready], progress: float
    ) -> tuple[Tensor, float | None, int, float]:
        """Add up gradients of the mean over all targets; mean nats, patch size, bytes, and the
        hooks' FLOPs."""
        world = self.parallel.world
        texts = [ready.batch for ready in batches]
        targets, num_bytes = self.parallel.sums(
            [sum(text.num_targets for text in texts), sum(text.num_bytes for text in texts)]
        )
        targets = max(1, targets)  # of noised text alone there may be none
        rows = RowGradients(self.parameters)
        nats = torch.zeros((), dtype=torch.float32, device=self.model.device)
        extra_flops = size = 0.0
        for number, ready in enumerate(batches, 1):
            last_backward(self.model, number == len(batches))
            loss = self._loss(ready, progress)
            nats += loss.nats.detach()
            extra_flops += loss.extra_flops
            size += loss.patch_size or 0.0
            # FSDP2 takes the mean over processes.
            (loss.minimised * (world / targets)).backward()  # type: ignore[no-untyped-call]
            if len(batches) > 1:
                rows.take()
        rows.give_back()
        self.parallel.add_up(nats)
        extra_flops, size = self.parallel.sums([extra_flops, size])
        return nats / targets, size / len(batches) / world or None, int(num_bytes), extra_flops

    def _loss(self, ready: Ready, progress: float) -> _Loss:
        ready = self.hooks.lay_out(self.model, ready)
        with autocast(self.model.device, self.dtype), routes_of(self.model) as routes:
            logits = self.hooks.predict(self.model, ready)
        pressed = self.compression.press(routes, progress)
        targets = ready.targets
        nats = self.model.loss(logits, targets)
        extra = self.hooks.extra_loss(ready.batch, logits, targets)
        minimised = nats + extra.loss + pressed.loss * ready.batch.num_targets
        return _Loss(minimised, nats, extra.flops, ready.patch_size or pressed.patch_size)

    def check(self) -> None:
        """Have steps been left out too often? Reads from the device.

        Raises:
            DivergedError: too many in a row.
        """
        in_a_row = int(self.guard.counts[2])
        if in_a_row >= self.config.most_skipped:
            raise DivergedError(
                f"loss or gradient was not finite, or exploded, in {in_a_row} steps "
                f"in a row, up to step {self.steps}: try a lower train.lr, or "
                "train.precision=float32"
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
            **self.guard.state(),
            "loader": self.loader.state(),
            "documents": self.loader.loader.fingerprint,
            "device": device_name(self.model.device),
            "bfloat16_is_faster": settled_bfloat16(self.model.device),
        }
        return TrainerState(tensors, values)

    def restore(self, run: RunFolder) -> None:
        """Go on exactly where :meth:`state` was taken; with another number of processes, in the
        same place of the text.

        Raises:
            UserError: the checkpoint is damaged, or belongs to other text or another model.
        """
        values, where = checked_values(run, self.loader.loader), str(run.checkpoint / TRAINER)
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
        self.guard.restore(self.steps, values)

    def _templates(self) -> Iterator[tuple[str, Tensor]]:
        """What the state of every parameter looks like, under the names of :meth:`state`."""
        for index, optimizer in enumerate(self.optimizers):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for number, parameter in enumerate(parameters):
                for name, tensor in _new_state(optimizer, parameter).items():
                    yield f"{index}.{number}.{name}", tensor


def checked_values(run: RunFolder, loader: Loader) -> dict[str, Any]:
    """The trainer's part of a checkpoint, if it is of the text of ``loader``, wherever that lies.

    Raises:
        UserError: missing or damaged, or it is other text, or in another order.
    """
    values = run.trainer_values()
    TrainerValues.check(values, str(run.checkpoint / TRAINER))
    if values["documents"] != loader.fingerprint:
        raise UserError(
            "the text to train on has changed since the checkpoint; restore it, or start another "
            "run"
        )
    return values


def _set_rng(state: Tensor) -> None:
    try:
        torch.set_rng_state(state)
    except RuntimeError as error:
        raise UserError(f"rng: damaged ({first_line(error)})") from None


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
