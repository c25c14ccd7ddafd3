"""Jobs one after another, in another process, which is killed when one takes too long.

Needs neither torch nor a GPU itself, so nothing of what it measures can stop it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.gpu_jobs.plan import Job
from blt.errors import UserError

Results = dict[str, dict[str, Any]]  # by the name of the job
STARTING = 120.0  # seconds: importing torch from a slow disk, waking a GPU
LOG = "gpu.log"  # what jobs print


class Worker:
    """The process in which jobs run; left as a context manager, it is dead.

    Args:
        out: folder of the results, and of the log.
        smoke, quick: as of :class:`benchmarks.gpu_jobs.place.Place`.
    """

    def __init__(self, out: Path, smoke: bool, quick: bool) -> None:
        self.out = out
        self._options = json.dumps({"out": str(out), "smoke": smoke, "quick": quick})
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self, limit: float = STARTING) -> dict[str, Any]:
        """A new process; returns its first message: ``about`` it and its kind of ``device``.

        Raises:
            UserError: it ended, or said nothing for so long; with the last line of the log.
        """
        self.kill()
        # The same modules as here, also where they were found in an unpacked bundle.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with (self.out / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "benchmarks.gpu_jobs.worker", self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=env,
                start_new_session=True,  # compilers that it starts die with it
            )
        self._lines = queue.Queue()
        threading.Thread(target=_pass_on, args=(self._process, self._lines), daemon=True).start()
        try:
            return next(self._messages(limit))
        except (TimeoutError, EOFError) as error:
            self.kill()
            last = (self.out / LOG).read_text(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"the measuring process did not start ({error}): {last}") from None

    @property
    def alive(self) -> bool:
        return self._process is not None

    def do(self, job: Job, limit: float) -> Iterator[dict[str, Any]]:
        """Let it do a job; yields what that finds, with an ``error`` if it fails or overruns.

        Args:
            limit: seconds from now; then it is killed.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({**asdict(job), "limit": limit}) + "\n")
            self._process.stdin.flush()
            for message in self._messages(limit):
                if "done" in message:
                    break
                yield message["found"]
            if not message["fresh"]:
                self.kill()
        except TimeoutError:
            self.kill()
            yield {"error": f"stopped after its limit of {limit:.0f} s"}
        except (EOFError, OSError):
            status = self._process.wait()
            self.kill()
            yield {"error": f"its process ended with status {status}; see {LOG}"}

    def kill(self) -> None:
        """End the process and all that it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # of a job that was never read
            self._process.stdin.close()
        self._process = None

    def _messages(self, limit: float) -> Iterator[dict[str, Any]]:
        """What the process says.

        Raises:
            TimeoutError: for ``limit`` seconds, counted from the first question, it was not done.
            EOFError: it has ended.
        """
        end = time.monotonic() + limit
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"nothing after {limit:.0f} s") from None
            if line is None:
                raise EOFError("it ended")
            yield json.loads(line)


def _pass_on(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout as said:
        for line in said:
            lines.put(line)
    lines.put(None)


def run(
    worker: Worker,
    jobs: Sequence[Job],
    end: float,
    show: Callable[[Results, str, bool], None],
) -> Results:
    """Do jobs in their order, each within its limit and all before ``end``, of time.monotonic.

    One that could have less than half of its limit is left out, and the next, which may need less,
    is tried.

    Args:
        show: called with all results so far, the name of the job that they grew by, and whether it
            has ended.
    """
    results: Results = {}
    for job in jobs:
        found = results[job.name] = {}
        for part in _within(worker, job, end):
            found.update(part)
            show(results, job.name, False)
        show(results, job.name, True)
    return results


def _within(worker: Worker, job: Job, end: float) -> Iterator[dict[str, Any]]:
    """What a job finds, if it has the time."""

    def too_late() -> str | None:
        left = end - time.monotonic()
        if left >= job.limit / 2:
            return None
        return f"left out: {max(0.0, left):.0f} s were left, it may take {job.limit:.0f}"

    if (error := too_late()) is None and not worker.alive:
        try:
            worker.start()
        except UserError as failed:
            error = str(failed)
    if (error := error or too_late()) is not None:
        yield {"error": error}
    else:
        yield from worker.do(job, min(job.limit, end - time.monotonic()))
