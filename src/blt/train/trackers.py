"""Where reports go besides the run folder: TensorBoard, Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from blt.errors import UserError
from blt.files import durable

WANDB_ID = "wandb.id"  # of the run there that this one goes on with

Track = Callable[[int, dict[str, float]], None]  # step, values by name


def trackers(names: tuple[str, ...], run: Path, after: int = 0) -> list[Track]:
    """Called with every report.

    Args:
        after: steps that were taken before; what was told of later ones is forgotten.
        names: "tensorboard" writes event files into ``run/tensorboard``; "wandb" opens a run in the
            project ``blt``, or goes on with the one that this run had (its own settings, such as
            WANDB_PROJECT and WANDB_MODE, hold).

    Raises:
        UserError: one is not installed.
    """
    makers = {"tensorboard": _tensorboard, "wandb": _wandb}
    return [makers[name](run, after) for name in names]


def numbers(report: Any) -> dict[str, float]:
    """What of a report can be drawn, flat."""
    flat: dict[str, float] = {}
    for name, value in asdict(report).items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": float(part) for key, part in value.items()}
        elif value is not None:
            flat[name] = float(value)
    return flat


def _tensorboard(run: Path, after: int) -> Track:
    library = _needed("torch.utils.tensorboard", "tensorboard")
    purged = after + 1 if after else None
    writer = library.SummaryWriter(run / "tensorboard", purge_step=purged)

    def track(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return track


def _wandb(run: Path, after: int) -> Track:
    library, kept = _needed("wandb", "wandb"), run / WANDB_ID
    known = kept.read_text().strip() if after and kept.is_file() else None
    started = library.init(dir=run, name=run.name, id=known, resume="allow")
    if known is None:
        durable.write_text(kept, f"{started.id}\n")

    def track(step: int, values: dict[str, float]) -> None:
        started.log(values, step=step)

    return track


def _needed(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"train.trackers: {package} is not installed; pip install {package}, or leave it out"
        ) from error
