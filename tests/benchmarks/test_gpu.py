"""One command measures all that a GPU is for, whatever happens to one of its jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import DeviceType

from benchmarks import gpu, machine, shape
from benchmarks.gpu_jobs import decoding, profile, shapes, tables, targets, worker
from benchmarks.gpu_jobs.place import Place
from benchmarks.gpu_jobs.plan import JOBS, Job, chosen
from benchmarks.gpu_jobs.supervise import LOG, Worker, run
from benchmarks.steps import prepared_step
from blt.errors import UserError
from blt.generate import Engine
from shapes import random_blt

CPU = torch.device("cpu")
# Jobs of other kinds than the usual ones.
STRANGE = """
import os, subprocess, sys, time

def good(place):
    print("said aloud")  # must not be taken for a message
    yield {"number": float("inf")}

def wrong(place):
    yield {"number": 1}
    raise RuntimeError("no\\nluck")

def endless(place, file):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield {"child": child.pid}
    time.sleep(60)

def dead(place):
    yield {"number": 2}
    os._exit(3)
"""


def test_smoke_has_a_row_without_an_error_for_every_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = gpu.main(tmp_path, smoke=True)
    assert {name: row["error"] for name, row in found.items() if "error" in row} == {}
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["results"] == found
    assert {"date", "device", "torch", "cuda", "driver", "triton", "commit"} <= {*written["about"]}
    assert list(found) == [job.name for job in JOBS]
    table = (tmp_path / "gpu.md").read_text()
    assert all(f"| {job.name} |" in table for job in JOBS)
    assert "not measured" not in table
    assert table in capsys.readouterr().out
    assert (tmp_path / "profile-training-1b.txt").is_file()
    assert (tmp_path / "profile-decoding-1b-1-entropy.txt").is_file()


def test_a_job_that_fails_overruns_or_dies_is_a_row_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange_jobs.py").write_text(STRANGE)
    monkeypatch.syspath_prepend(tmp_path)
    limits = {"wrong": 60.0, "endless": 1.0, "dead": 60.0, "good": 60.0}
    arguments: dict[str, Any] = {"endless": {"file": "x"}}
    jobs = [
        Job(name, f"strange_jobs:{name}", limit, arguments.get(name, {}))
        for name, limit in limits.items()
    ]
    found = gpu.main(tmp_path, smoke=True, jobs=jobs)
    assert found["wrong"]["error"] == "RuntimeError: no luck"
    assert found["wrong"]["number"] == 1
    assert found["endless"]["error"] == "stopped after its limit of 1 s"
    assert not _runs(found["endless"]["child"])
    assert found["dead"] == {"number": 2, "error": f"its process ended with status 3; see {LOG}"}
    assert found["good"]["number"] == "inf"
    assert "said aloud" in (tmp_path / LOG).read_text()
    assert "**RuntimeError: no luck**" in (tmp_path / "gpu.md").read_text()


def _runs(process: int) -> bool:
    """A killed one may still be waiting to be noticed by its parent."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        state = Path(f"/proc/{process}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.05)
    return True


class NeverAsked(Worker):
    """Knows what it would have been told to do."""

    alive = True

    def __init__(self) -> None:
        self.limits: dict[str, float] = {}

    def do(self, job: Job, limit: float) -> Any:
        self.limits[job.name] = limit
        yield {"number": 1}


def test_what_no_longer_fits_is_left_out_and_shorter_jobs_still_run() -> None:
    worker, jobs = (
        NeverAsked(),
        [Job("long", "", 50.0), Job("cut", "", 30.0), Job("short", "", 5.0)],
    )
    found = run(worker, jobs, time.monotonic() + 20.0, lambda *_: None)
    assert found["long"] == {"error": "left out: 20 s were left, it may take 50"}
    assert found["cut"] == found["short"] == {"number": 1}
    assert worker.limits["short"] == 5.0
    assert worker.limits["cut"] == pytest.approx(20.0, abs=1.0)


def test_quick_does_the_most_important_jobs_and_only_those_that_are_named() -> None:
    names = [job.name for job in chosen(JOBS, quick=True, only=())]
    assert names == [job.name for job in JOBS[: len(names)]]
    assert {"parity", "training 1b 32768", "decoding 1b batch 1 entropy"} <= {*names}
    only = chosen(JOBS, quick=False, only=("entropies", "decoding 1b batch 1 "))
    assert [job.name.split()[0] for job in only] == ["entropies", "decoding", "decoding"]
    named = chosen(JOBS, quick=False, only=("training 1b 65536",))
    assert [job.name for job in named] == ["training 1b 65536"]  # not what begins so too
    with pytest.raises(UserError, match="no job begins with 'x'; known: device, parity"):
        chosen(JOBS, quick=False, only=("parity", "x"))
    assert len({job.name for job in JOBS}) == len(JOBS)


def test_a_text_that_failed_fails_its_job_with_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(random_blt(), native=False)

    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.model, "prefill", fails)
    with pytest.raises(RuntimeError, match="could not be read: out of memory"):
        decoding.finished(engine, b"x", max_bytes=3)
    with pytest.raises(RuntimeError, match="could not be read: out of memory"):
        decoding._written(engine, [engine.submit(b"x", max_bytes=3)], 1)


def test_an_error_is_told_with_the_one_that_it_came_of() -> None:
    with pytest.raises(RuntimeError) as raised:  # noqa: PT012
        try:
            raise ValueError("a shape")
        finally:
            raise RuntimeError("capture failed")
    said = worker._line(raised.value)
    assert said == "RuntimeError: capture failed; before it ValueError: a shape"
    raised.value.__suppress_context__ = True  # as of "from None"
    assert worker._line(raised.value) == "RuntimeError: capture failed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_can_be_done(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no CUDA device here; --smoke"):
        gpu.main(tmp_path)


def test_the_supervisor_loads_no_torch_and_the_jobs_nothing_that_a_bare_machine_lacks() -> None:
    code = (
        "import sys; import benchmarks.gpu; assert 'torch' not in sys.modules\n"
        "from benchmarks.gpu_jobs import decoding, device, entropies, loop\n"
        "from benchmarks.gpu_jobs import parity, peer, training, worker\n"
        "lacking = {'matplotlib', 'tyro', 'aiohttp', 'pandas', 'IPython'} & {*sys.modules}\n"
        "assert not lacking, lacking"
    )
    path = os.pathsep.join([str(machine.ROOT), str(machine.ROOT / "src")])
    env = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


# --- what is told ---------------------------------------------------------------------------------


def test_targets_are_met_missed_or_not_measured() -> None:
    results: targets.Results = {
        "training 1b 32768": {"bytes_per_second": 80e3, "mfu": 0.225},
        "training 1b 65536": {"error": "out of memory"},
        "training 1b 32768 patches of 8": {"bytes_per_second": 250e3, "mfu": 0.9},
        "parity": {"float32_error": 1e-3, "bf16_error": 1e-2},
        "decoding 1b batch 1 entropy": {"bytes_per_second": 100.0},
        "decoding 1b batch 16 entropy": {"bytes_per_second": 900.0},
        "decoding 1b batch 64 entropy": {"bytes_per_second": 2500.0},
    }
    told = tables.markdown({"torch": "2", "driver": None}, results)
    assert "torch 2\n" in told
    for line in (
        "| 1B training, patches of 4.5, share of the peak "
        "| ≥ 45.0% | 22.5% | missed: 50.0% of it |",
        "| 1B training, patches of 8, bytes per second "
        "| ≥ 225,000 bytes/s | 250,000 bytes/s | met |",
        "| 400M training, share of the peak | ≥ 40.0% |  | not measured |",
        "| logits, CPU against device, float32 | ≤ 0.0001 | 0.001 | missed: 1000.0% of it |",
        "| logits, CPU against device, bf16 | ≤ 0.02 | 0.01 | met |",
        "| 1B decoding, batch 64 over batch 1 | ≥ 20.00x | 25.00x | met |",
        "| training 1b 65536 | **out of memory** |  |  |",
    ):
        assert line in told


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted)))
def test_a_device_that_does_two_things_at_once_is_busy_once(spans: list[list[int]]) -> None:
    points = {point for start, end in spans for point in range(start, end)}
    assert profile._covered((start, end) for start, end in spans) == len(points)


def test_a_profile_counts_kernels_launches_and_waits_of_one_repetition() -> None:
    def event(
        name: str, start: int, end: int, on: Any = DeviceType.CUDA, mark: bool = False
    ) -> Any:
        span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
        return SimpleNamespace(name=name, device_type=on, time_range=span, is_user_annotation=mark)

    host = ["cudaLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch", "aten::mm"]
    host += ["cudaStreamSynchronize", "cudaStreamSynchronize", "cudaDeviceSynchronize"]
    events = [
        *(event(name, 0, 100, DeviceType.CPU) for name in host),
        event("Optimizer.step", 0, 9000, mark=True),
        event("product", 0, 3000),
        event("product", 2000, 4000),  # on another stream
        event("Memcpy DtoH", 6000, 6500),
    ]
    found, rows = profile.told(events, True, seconds=0.005, count=2)
    assert rows == [("product", 2.5, 1.0), ("Memcpy DtoH", 0.25, 0.5)]
    assert found["busy_share"] == pytest.approx(0.45)
    assert (found["kernels"], found["launches"], found["waits"]) == (1.5, 1.5, 1.0)


# --- what is measured -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["entropy", "lookup"])
def test_random_weights_cut_patches_of_the_size_that_is_wanted(rule: str) -> None:
    model = decoding.drawn(shape.TINY, rule, CPU)
    text = shape.random_ids(1, 2000)[0]
    assert model.patch(text).mean_size == pytest.approx(shape.MEAN_PATCH_SIZE, abs=1.0)


@given(batch=st.integers(1, 64), size=st.floats(1.5, 16.0))
def test_a_step_reads_weights_once_and_caches_of_every_text(batch: int, size: float) -> None:
    one, some = (decoding.bytes_read(shape.TINY, n, size, 700) for n in (1, batch))
    assert one * (1 - 1e-9) <= some <= batch * one * (1 + 1e-9)


@pytest.mark.parametrize("rule", ["entropy", "lookup"])
def test_the_weights_of_a_step_are_those_of_its_products(rule: str) -> None:
    model = decoding.drawn(shape.TINY, rule, CPU)
    products = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    # Of so many texts one always closes a patch; at the first byte there are no caches.
    assert decoding.bytes_read(model.config, 10**6, 4.5, 0) == pytest.approx(2 * products)


@pytest.mark.parametrize("kind", ["blt", "tokens", "recomputed"])
def test_a_prepared_step_trains(kind: str) -> None:
    place = Place(CPU, smoke=True, quick=False, out=Path())
    if kind == "tokens":
        model: Any = shapes.over_tokens(shapes.token_shape(place), CPU)
    else:
        model = shapes.spaced(shape.TINY, CPU)
    step = prepared_step(model, 2, 64, recomputed=kind == "recomputed")
    before = {name: value.clone() for name, value in model.named_parameters()}
    step()
    moved = [name for name, value in model.named_parameters() if not value.equal(before[name])]
    assert len(moved) > len(before) / 2
    assert all(value.isfinite().all() for value in model.parameters())


def test_patches_of_another_size_are_as_many_as_they_should_be() -> None:
    lengths = shape.random_patches(2, 800, 8.0)
    assert lengths.shape == (2, 100)
    assert lengths.sum(1).tolist() == [800, 800]
