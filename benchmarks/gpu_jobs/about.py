"""What was measured, on what, and when."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import blt
from benchmarks.machine import ROOT
from blt.machine.hardware import processor

COMMIT = "COMMIT"  # a file that a bundle holds instead of a repository
PACKAGES = ("triton", "transformers", "liger-kernel", "numpy")


def about(device: torch.device) -> dict[str, Any]:
    """Date, device, driver and the versions of what runs on it; None: not there, or not known."""
    gpu = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if gpu else None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "device": properties.name if properties else processor(),
        "memory": properties.total_memory if properties else None,
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "host": processor(),
        "threads": torch.get_num_threads(),
        "blt": blt.__version__,
        "commit": commit(),
    }


def commit() -> str | None:
    """Of this source, with a + where it has been changed since."""
    noted = ROOT / COMMIT
    if noted.is_file():
        return noted.read_text().strip()
    if not (ROOT / ".git").exists():
        return None
    found = _said("git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD")
    changed = _said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{found}+" if found and changed else found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _said(*command: str) -> str | None:
    """The first line that a program says; None where it is not there, or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None
