"""Where reports go besides the run folder: TensorBoard, Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from blt.errors import UserError

Track = Callable[[int, dict[str, float]], None]  # step, values by name


def trackers(names: tuple[str, ...], run: Path) -> list[Track]:
    """Called with every report.

    Args:
        names: "tensorboard" writes event files into ``run/tensorboard``; "wandb" opens a run in the
            project ``blt`` (its own settings, such as WANDB_PROJECT and WANDB_MODE, hold).

    Raises:
        UserError: one is not installed.
    """
    makers = {"tensorboard": _tensorboard, "wandb": _wandb}
    return [makers[name](run) for name in names]


def numbers(report: Any) -> dict[str, float]:
    """What of a report can be drawn, flat."""
    flat: dict[str, float] = {}
    for name, value in asdict(report).items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": float(part) for key, part in value.items()}
        elif value is not None:
            flat[name] = float(value)
    return flat


def _tensorboard(run: Path) -> Track:
    writer = _needed("torch.utils.tensorboard", "tensorboard").SummaryWriter(run / "tensorboard")

    def track(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return track


def _wandb(run: Path) -> Track:
    library = _needed("wandb", "wandb")
    started = library.init(dir=run, name=run.name, resume="allow")

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
