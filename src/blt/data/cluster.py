"""``blt prepare`` on Ray Data: the same workers, on the machines of a cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from blt.data.worker import Outcome, Task, Worker
from blt.errors import needed


def on_ray(
    worker: Worker, tasks: Sequence[Task], workers: int, device: str = "cpu"
) -> Iterator[Outcome]:
    """The same on Ray: ``out`` must be a folder that all of its machines see.

    Args:
        workers: so many at once.
        device: ``cuda`` gives each of them a GPU of the cluster for its entropy model.
    """
    data = needed("ray.data", "cluster")
    threads = torch.get_num_threads()
    out, options, here = worker.out.absolute(), worker.options, Path.cwd()

    class OnRay:
        def __init__(self) -> None:
            os.chdir(here)  # names of sources may be relative
            torch.set_num_threads(threads)  # sums, and so entropies, depend on it
            self.worker = Worker(out, options, device)

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return {"outcome": json.dumps(asdict(self.worker(Task(**row))))}

    if not tasks:
        return
    rows = data.from_items([asdict(task) for task in tasks], override_num_blocks=len(tasks))
    workers = min(workers, len(tasks))
    gpus = {} if device == "cpu" else {"num_gpus": 1}  # Ray shows a worker no other than its own
    for row in rows.map(OnRay, concurrency=workers, **gpus).iter_rows():
        yield Outcome(**json.loads(row["outcome"]))
