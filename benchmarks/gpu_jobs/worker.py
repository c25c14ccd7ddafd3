"""A process that does jobs, one after another, for :mod:`benchmarks.gpu_jobs.supervise`.

Started once for many jobs, since importing torch and waking a GPU takes ten seconds; it is replaced
when one of them fails or overruns. A line of JSON on its input is a job; lines of JSON on its
output say what was found. Whatever else is printed goes to the log.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import math
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.gpu_jobs.about import about
from benchmarks.gpu_jobs.place import Place

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl
BEFORE_THE_END = 3.0  # seconds before a job is killed, the log is told where it stands


def main(options: dict[str, Any]) -> None:
    out = _only_messages()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = False  # parity is with float32
    place = Place(device, options["smoke"], options["quick"], Path(options["out"]))
    _say(out, about=about(device), device=device.type)
    for line in sys.stdin:
        _do(json.loads(line), place, out)


def _do(job: dict[str, Any], place: Place, out: TextIO) -> None:
    on_gpu = place.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start, failed = time.monotonic(), False
    print(f"--- {job['name']}", file=sys.stderr, flush=True)
    faulthandler.dump_traceback_later(max(1.0, job["limit"] - BEFORE_THE_END))
    try:
        module, _, function = job["work"].partition(":")
        for found in getattr(import_module(module), function)(place, **job["arguments"]):
            _say(out, found=found)
    except Exception as error:  # whatever it is, the other jobs go on
        sys.excepthook(*sys.exc_info())
        failed = True
        _say(out, found={"error": _line(error)})
    finally:
        faulthandler.cancel_dump_traceback_later()
    took = {"took": time.monotonic() - start}
    if on_gpu:
        took["peak_memory"] = torch.cuda.max_memory_allocated()
    _say(out, found=took)
    _clear(on_gpu)
    kept = torch.cuda.memory_allocated() if on_gpu else 0
    _say(out, done=True, fresh=not failed and kept < 2**28)


def _line(error: BaseException) -> str:
    """An error, and the one that it came of: a capture that fails says little by itself."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text if before is None else f"{text}; before it {_line(before)}"


def _clear(on_gpu: bool) -> None:
    """The next job is to find no memory and no compiled code of this one."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()


def _only_messages() -> TextIO:
    """Standard output for messages alone: what else is printed goes to standard error."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _say(out: TextIO, **message: Any) -> None:
    out.write(json.dumps(_plain(message)) + "\n")
    out.flush()


def _plain(value: Any) -> Any:
    """Without infinities and the like, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
