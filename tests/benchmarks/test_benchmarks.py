"""The benchmarks start, run each measurement apart, and tell what they found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import cpu, cpu_jobs, generate, generate_jobs, machine, report, serve, shape
from blt.errors import UserError
from blt.machine.runtime import WAITING

FILES = ("convert", "gpu", "harness", "loader", "loop", "plan_memory", "prepare", "released")
SPEEDS = {"transformers": 100.0, "ours": 300.0}  # bytes per second


def test_each_explains_itself_and_loads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for name in command.VERBS:
        with pytest.raises(SystemExit) as stop:
            command.main([name, "--help"])
        assert stop.value.code == 0
        assert f"usage: python -m benchmarks {name}" in capsys.readouterr().out
    code = "import sys; from benchmarks import __main__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=machine.ROOT)


@pytest.mark.parametrize("name", FILES)
def test_a_file_runs_as_well_from_anywhere(name: str, tmp_path: Path) -> None:
    file = machine.ROOT / "benchmarks" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, str(file), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ")
    assert callable(import_module(f"benchmarks.{name}").main)


def test_a_users_mistake_ends_in_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["cpu", "--only", "nonsense"]) == 2
    assert "unknown benchmark 'nonsense'; known: train 4 x 2048, " in capsys.readouterr().err
    assert command.main(["generate", str(tmp_path / "none" / "results.json")]) == 2
    assert "its folder does not exist" in capsys.readouterr().err


def test_threads_wait_in_a_measurement_as_they_do_under_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Spinning ones are a fifth faster where nothing else runs, and crawl where something does."""
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    assert machine.apart(os.getenv, key="OMP_WAIT_POLICY") == "PASSIVE"


def test_a_measurement_apart_is_what_its_function_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert machine.apart(machine.about, device="cpu") == machine.about()
    with pytest.raises(UserError, match=r"^matmul_peak .*TypeError: .*'nonsense'$"):
        machine.apart(cpu_jobs.matmul_peak, nonsense=1)


def test_patches_are_as_many_in_each_row_and_make_up_its_bytes() -> None:
    lengths = shape.random_patches(3, 90)
    assert lengths.shape == (3, 20)
    assert lengths.sum(1).tolist() == [90] * 3
    assert (lengths > 0).all()
    for row, decision in zip(lengths, shape.decisions(lengths), strict=True):
        assert decision.shape == (91,)
        assert decision.sum() == len(row)


@pytest.mark.parametrize("side", ["transformers", "ours"])
def test_a_training_step_trains(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape, "CONFIG", shape.TINY)
    monkeypatch.setattr(shape.transformers_model, "__defaults__", (shape.TINY,))
    step = cpu_jobs.WORK["train", side]("float32", 2, 64)
    before = losses(step)
    assert min(before[1:]) < before[0]


def losses(step: Any) -> list[float]:
    """Of some steps."""
    found: list[float] = []
    original = torch.Tensor.backward

    def backward(loss: torch.Tensor) -> None:
        found.append(loss.item())
        original(loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", backward)
        for _ in range(4):
            step()
    return found


# --- what is told ---------------------------------------------------------------------------------


def cpu_found(measure: Any, **arguments: Any) -> dict[str, float]:
    """What the jobs of the main table might return; bfloat16 is twice as fast on both sides."""
    if measure is cpu_jobs.matmul_peak:
        return {"flops": 1e11}
    if arguments["precision"] == "bfloat16-weights":
        raise UserError("out of memory")
    faster = 1 + (arguments["precision"] == "bfloat16")
    speed = SPEEDS[arguments["side"]] * faster
    return {"bytes_per_second": speed, "peak_memory": 3e9 - speed}


def test_the_main_table_compares_each_side_at_its_fastest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu, "apart", cpu_found)
    monkeypatch.setenv("COLUMNS", "120")
    file = tmp_path / "results.json"
    assert command.main(["cpu", str(file), "--json"]) == 0
    out = capsys.readouterr().out
    assert "600 (autocast)" in out
    assert "1 x 32768" in out
    results = json.loads(file.read_text())
    assert [row["ratio"] for row in results["jobs"]] == [3.0] * 4
    assert results["jobs"][0]["ours"]["bfloat16-weights"] == {"error": "out of memory"}
    flops = results["jobs"][0]["flops_per_second"]
    assert results["jobs"][0]["share_of_peak"] == pytest.approx(flops / 1e11)


def test_json_goes_to_standard_output_and_tables_to_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu, "apart", cpu_found)
    monkeypatch.setenv("COLUMNS", "120")
    assert command.main(["cpu", "--json", "--only", "train 4 x 2048"]) == 0
    out, err = capsys.readouterr()
    assert [row["name"] for row in json.loads(out)["jobs"]] == ["train 4 x 2048"]
    assert "train 4 x 2048" in err


def test_generation_tells_speeds_and_whether_texts_are_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    speed = {"bytes_per_second": 100.0, "weight_bytes": 1e6}
    drafted = {
        str(k): {**speed, "acceptance": 0.5, "global_calls": 100 - k, "text": str(k > 8)}
        for k in generate.DRAFTS
    }
    found: dict[Any, Any] = {
        generate_jobs.bandwidth: {"bytes_per_second": 1e9},
        generate_jobs.peer: speed,
        generate_jobs.ours: {"1": speed, "16": speed},
        generate_jobs.length: {name: {"all": 2.0, "local": 1.0} for name in generate.LENGTHS},
        generate_jobs.fork: {"read_each": 8.0, "read_once": 1.0},
        generate_jobs.bits: {"bits_per_byte": 2.0},
        generate_jobs.speculate: drafted,
        generate_jobs.proportions: drafted,
    }
    monkeypatch.setattr(generate, "apart", lambda measure, **_: found[measure])
    assert command.main(["generate", "--model", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "8.0x (target 8x)" in out
    assert out.count("yes") == 4
    assert out.count("NO") == 2


@pytest.mark.parametrize(("wrong", "status"), [(0, 0), (1, 1)])
def test_a_wrong_answer_of_the_server_ends_in_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: int, status: int
) -> None:
    async def served(*_: Any) -> dict[str, Any]:
        found = serve.Outcome(compared=9, wrong=wrong).to_json()
        memory = {"start": 1, "end": 2**20, "growth": 0.01, "samples": []}
        return {"bytes_per_second": 90.0, "memory": memory, **found}

    monkeypatch.setattr(serve, "apart", lambda *_, **__: {"texts": [], "bytes_per_second": 100.0})
    monkeypatch.setattr(serve, "_served", served)
    assert command.main(["serve", "--chaos", "--clients", "3"]) == status
    out = capsys.readouterr().out
    assert "90.0%" in out
    assert "p99, beside long prompts over usual" in out


def test_results_are_added_to_those_of_before(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    assert report.earlier(file) == report.earlier(None) == {}
    report.write(file, {"a": 1})
    report.write(None, {"b": 1})
    assert report.earlier(file) == {"a": 1}
