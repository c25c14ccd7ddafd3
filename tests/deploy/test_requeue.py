"""The Slurm job, over a time limit, with a real torchrun: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blt.train import DataConfig, Recipe, TrainConfig, write_recipe
from metrics import reports
from shapes import TINY

SBATCH = Path(__file__).parents[2] / "deploy" / "slurm" / "train.sbatch"
STEPS = 300
pytestmark = pytest.mark.slow  # half a minute: torchrun with two processes, twice


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The job's command, where srun is one machine, and scancel tells all processes on it."""
    stand_ins = {
        "srun": f'echo $$ > "{tmp_path}/pid"; until [ "$1" = torchrun ]; do shift; done; shift; '
        f'exec "{sys.executable}" -m torch.distributed.run "$@"',
        "scancel": f'pid=$(cat "{tmp_path}/pid"); kill -TERM $pid $(pgrep -P $pid)',
        "scontrol": f'echo "$@" >> "{tmp_path}/scontrol"; echo localhost',
    }
    (tmp_path / "bin").mkdir()
    for name, script in stand_ins.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        monkeypatch.setenv("PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PROCESSES_PER_NODE", "2")
    for name, value in {"ID": "42", "NODELIST": "localhost", "NUM_NODES": "1"}.items():
        monkeypatch.setenv(f"SLURM_JOB_{name}", value)
    (tmp_path / "text.txt").write_text("".join(f"{n} bottles of beer, " for n in range(400)))
    data = DataConfig((str(tmp_path / "text.txt"),), context_bytes=100, batch_bytes=256)
    train = TrainConfig(steps=STEPS, precision="float32", eval_bytes=300)
    write_recipe(tmp_path / "recipe.toml", Recipe("byte", data, train, byte_model=TINY))
    return ["bash", str(SBATCH), str(tmp_path / "recipe.toml"), str(tmp_path / "run")]


def test_a_training_over_a_time_limit_goes_on_after_it(job: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = subprocess.Popen(job)
    while len(reports(run)) < 10:
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGUSR1)  # as Slurm does before the limit
    assert first.wait(timeout=120) != 0
    assert "requeue 42" in (tmp_path / "scontrol").read_text()
    written = json.loads((run / "checkpoint" / "trainer.json").read_text())["step"]
    assert 10 <= written == len(reports(run)) < STEPS  # where it was told, not a minute before
    subprocess.run(job, check=True, timeout=300)  # as Slurm starts it again
    assert [report["step"] for report in reports(run)] == list(range(1, STEPS + 1))
