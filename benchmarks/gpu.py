"""What this library does on a GPU: parity with the CPU, training, decoding, memory, the peer.

    python -m benchmarks gpu OUT_FOLDER              # at most eight minutes, on one CUDA device
    python -m benchmarks gpu OUT_FOLDER --quick      # two minutes: the most important jobs
    python -m benchmarks gpu OUT_FOLDER --seconds 200  # the first jobs, as far as that reaches
    python -m benchmarks gpu OUT_FOLDER --smoke      # every job on tiny shapes, on any machine

Writes OUT_FOLDER/gpu.json and OUT_FOLDER/gpu.md, anew whenever a job has found something, and
profiles beside them. A job that fails, takes too long or no longer fits into the time has a row
that says so, and the others go on. As a file (python benchmarks/gpu.py) it needs no tyro, and blt
only on the path: there are machines that have no more (see tools/gpu_bundle.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure this library on a GPU.")
    parser.add_argument(
        "out", type=Path, nargs="?", default=Path("gpu-results"), help="folder for the results"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, on any machine")
    parser.add_argument("--quick", action="store_true", help="two minutes: what matters most")
    parser.add_argument("--only", nargs="*", default=(), help="jobs of these names, or beginnings")
    parser.add_argument("--seconds", type=float, help="for everything, instead of 480 or 120")
    options = parser.parse_args()
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmarks.gpu import main as measure
    from blt.errors import UserError

    try:
        measure(**vars(options))
    except UserError as error:
        parser.error(str(error))
    raise SystemExit

from benchmarks.gpu_jobs.plan import JOBS, Job, chosen
from benchmarks.gpu_jobs.supervise import Results, Worker, run
from benchmarks.gpu_jobs.tables import markdown, row
from blt.errors import UserError
from blt.files.durable import write_json

BUDGET, QUICK_BUDGET = 480.0, 120.0  # seconds for everything
RESERVE = 5.0  # of these, to kill and to write


def main(
    out: Path,
    smoke: bool = False,
    quick: bool = False,
    only: Sequence[str] = (),
    seconds: float | None = None,
    jobs: Sequence[Job] = JOBS,
) -> Results:
    """Measure, print and write.

    Args:
        out: folder for the results; made if it is not there.
        smoke: tiny shapes, on any machine.
        quick: only the most important jobs, and shorter.
        only: names, or their beginnings, of the jobs to do, in this order; none: all.
        seconds: for everything; None: 480, or 120 if it is quick.

    Returns:
        what each job found, by its name.

    Raises:
        UserError: no such job, no CUDA device, or the measuring process does not start.
    """
    usual = QUICK_BUDGET if quick else BUDGET
    end = time.monotonic() + (usual if seconds is None else seconds) - RESERVE
    jobs = chosen(jobs, quick, only)
    out.mkdir(parents=True, exist_ok=True)
    with Worker(out.absolute(), smoke, quick) as worker:
        started = worker.start()
        if started["device"] != "cuda" and not smoke:
            raise UserError("there is no CUDA device here; --smoke tries the jobs on tiny shapes")
        about = started["about"]

        def show(results: Results, name: str, ended: bool) -> None:
            write_json(out / "gpu.json", {"about": about, "smoke": smoke, "results": results})
            (out / "gpu.md").write_text(markdown(about, results, smoke))
            if ended:
                print(row(name, results[name]), flush=True)

        results = run(worker, jobs, end, show)
    print((out / "gpu.md").read_text())
    return results
