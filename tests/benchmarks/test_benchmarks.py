"""The benchmarks start, run each measurement apart, and tell what they found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import cpu, cpu_jobs, generate, generate_jobs, loop, machine, report, serve, shape
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


@pytest.mark.parametrize("name", sorted(command.VERBS.keys() - {"gpu"}))
def test_nothing_is_measured_that_could_not_be_written(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for file, message in (
        (tmp_path / "none" / "results.json", "its folder does not exist"),
        (tmp_path, "is a folder; name a file"),
    ):
        assert command.main([name, str(file)]) == 2
        assert message in capsys.readouterr().err


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


def test_what_could_not_be_measured_is_told_beside_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one side nothing, of the other no second time, and the first row of the scaling."""
    calls: list[tuple[str, ...]] = []

    def found(measure: Any, **arguments: Any) -> dict[str, float]:
        calls.append(tuple(map(str, arguments.values())))
        kind = tuple(arguments.get(name) for name in ("job", "side", "length"))
        if kind == ("entropies", "transformers", 8192):
            raise UserError("out of memory [/of it]")
        if kind[0] == "score" and (calls.count(calls[-1]) > 1 or arguments["batch"] == 16):
            raise UserError("out of memory [/of it]")
        return cpu_found(measure, **arguments)

    monkeypatch.setattr(cpu, "apart", found)
    monkeypatch.setenv("COLUMNS", "160")
    file = tmp_path / "results.json"
    assert command.main(["cpu", str(file)]) == 0
    out, results = capsys.readouterr().out, json.loads(file.read_text())
    assert [row.get("ratio") for row in results["jobs"]] == [3.0, 3.0, 3.0, None]
    assert results["jobs"][3]["ours"]["bfloat16"]["bytes_per_second"] == 600
    assert "transformers: no precision could be" in " ".join(out.split())
    assert "[/of it]" in out
    assert "1 x 32768" in out


def test_results_are_kept_if_they_cannot_be_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def show(*_: object) -> None:
        raise KeyError("no such result")

    for file, as_json in ((tmp_path / "results.json", False), (None, True)):
        with pytest.raises(KeyError, match="no such result"):
            report.report(lambda _: {"hours": 9}, show, file, as_json)
    assert report.earlier(tmp_path / "results.json") == {"hours": 9}
    assert json.loads(capsys.readouterr().out) == {"hours": 9}


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


# --- the server that is measured -----------------------------------------------------------------

LISTENS = """print('{"event": "listening", "url": "http://here"}', file=sys.stderr, flush=True)"""
WAITS = "signal.pause()"


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Serve with a script in the server's place; says by which signal it was ended."""
    started: list[subprocess.Popen[str]] = []

    class Server(subprocess.Popen[str]):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            started.append(self)

    def served(*lines: str) -> signal.Signals:
        script = tmp_path / "server"
        # The alarm ends what nobody else does.
        head = f"#!{sys.executable}", "import signal, sys", "signal.alarm(60)"
        script.write_text("\n".join([*head, *lines, ""]))
        script.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", Server)
            patch.setattr(sys, "executable", str(script))
            try:
                with serve.server(serve.Load()) as (url, pid):
                    assert (url, pid) == ("http://here", started[-1].pid)
            finally:
                code = started[-1].returncode
        return signal.Signals(-code)

    return served


def test_a_server_is_waited_for_until_it_listens_and_ended_behind(ends: Any) -> None:
    warns = "print('a warning of something', file=sys.stderr, flush=True)"
    assert ends(warns, LISTENS, WAITS) == signal.SIGTERM


def test_a_server_that_does_not_end_is_killed(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "STOP_SECONDS", 0.1)
    ignores = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    assert ends(ignores, LISTENS, "while True:", f"    {WAITS}") == signal.SIGKILL


def test_a_server_that_never_listens_is_given_up(
    ends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="did not start: no model; does blt serve start"):
        ends("sys.exit('no model')")
    monkeypatch.setattr(serve, "START_SECONDS", 0.1)
    with pytest.raises(UserError, match="did not start: it said nothing"):
        ends(WAITS)


def test_results_are_added_to_those_of_before(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    assert report.earlier(file) == report.earlier(None) == {}
    report.write(file, {"a": 1})
    report.write(None, {"b": 1})
    assert report.earlier(file) == {"a": 1}


def test_shapes_of_the_loop_are_measured_beside_those_of_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(loop, "measured", lambda made: {"bare": made.data.context_bytes})
    file = tmp_path / "results.json"
    for names in ([], ["4 x 2048"]):
        assert command.main(["loop", str(file), *names]) == 0
        assert report.earlier(file) == {"4 x 2048": {"bare": 2048}, "1 x 8192": {"bare": 8192}}
        file.write_text(json.dumps(report.earlier(file) | {"4 x 2048": {"bare": 0}}))
    before = file.read_bytes()
    assert command.main(["loop", str(file), "4x2048"]) == 2
    assert "unknown shape '4x2048'; known: 4 x 2048, 1 x 8192" in capsys.readouterr().err
    assert file.read_bytes() == before
