"""``blt demo``: a small model in ten minutes; what it shows is in :mod:`blt.demo`."""

from __future__ import annotations

from pathlib import Path

from blt.cli.device import Device, chosen
from blt.errors import require

MINUTES, PATCH_SIZE = 9.0, 4.5


def demo(
    *,
    text: Path | None = None,
    run: Path | None = None,
    minutes: float | None = None,
    patch_size: float | None = None,
    seed: int = 0,
    entropy_model: str | None = None,
    pretrained: bool = False,
    device: Device = "auto",
) -> None:
    """Train a small model in ten minutes, and compare and watch it.

    Args:
        text: Text file or folder to learn from, instead of this Python's own source and docs.
        run: Folder to write to; left out: runs/demo-DATE-TIME.
        minutes: Time for everything together. Left out: 9.
        patch_size: Bytes per patch that the threshold is calibrated to. Left out: 4.5.
        seed: Of the weights, the order of the data and the sample.
        entropy_model: Folder of the model that says where patches end, or "pretrained", the one in
            the package; left out: the demo trains one first.
        pretrained: Train nothing: score the text with the model inside the package, and watch it.
    """
    from blt.demo import run_demo, show_pretrained

    chosen(device)  # before anything is written
    if pretrained:
        of_trainings = {
            "--run": run,
            "--minutes": minutes,
            "--patch-size": patch_size,
            "--entropy-model": entropy_model,
        }
        for name, given in of_trainings.items():
            idle = f"--pretrained trains nothing, so it has no {name}; leave one out"
            require(given is None, idle)
        show_pretrained(text, seed, device)
        return
    run_demo(
        text=text,
        folder=run,
        minutes=MINUTES if minutes is None else minutes,
        patch_size=PATCH_SIZE if patch_size is None else patch_size,
        seed=seed,
        device=device,
        entropy_model=entropy_model,
    )
