"""The machine that is measured, and how: what it is, and one measurement in its own process."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from blt.errors import UserError, how_to_install
from blt.machine.hardware import processor

ROOT = Path(__file__).parents[1]  # of the repository


def about(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The processor, or the GPU, its threads, the date and the versions of what runs on it."""
    try:
        import transformers
    except ImportError:
        raise UserError(
            "the benchmarks compare with transformers, which is not installed; "
            f"run: {how_to_install('bench')}"
        ) from None
    gpu = torch.device(device).type == "cuda"
    return {
        "date": datetime.date.today().isoformat(),
        **({"device": torch.cuda.get_device_name(device)} if gpu else {"cpu": processor()}),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def fastest(work: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest repetition; after one to warm up, repeated for ``seconds``."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def apart(measure: Callable[..., Any], **arguments: Any) -> Any:
    """What a module's function returns when a new process calls it.

    So one measurement's memory and settings never touch another's. Arguments and result travel as
    JSON.

    Raises:
        UserError: the process failed; with the last line that it wrote.
    """
    name = f"{measure.__module__}:{measure.__qualname__}"
    command = [sys.executable, "-m", __name__, name, json.dumps(arguments)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        raise UserError(f"{measure.__name__} {arguments}: {said[0]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(name: str, arguments: str) -> None:
    """Call ``module:function``, and print what it returns as JSON."""
    module, _, function = name.partition(":")
    print(json.dumps(getattr(import_module(module), function)(**json.loads(arguments))))


if __name__ == "__main__":
    main(*sys.argv[1:])
