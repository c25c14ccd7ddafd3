"""A study searches, trains, scores, goes on after a kill, and refuses what does not fit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt import cli
from blt.study import Point, Search, costs, read_study, run_study, timing, training
from blt.study.folder import COSTS, EVALS, SCORES, StudyFolder
from blt.study.report import write_report
from blt.tokens.tokenizer import ByteTokenizer
from blt.train import DataConfig, Recipe, TrainConfig
from blt.train.trainer import DivergedError
from small_study import ASKED, changed, copied
from tools import retrain


def test_a_study_runs_to_its_end_and_goes_on_where_it_was_killed(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, study, begun = tmp_path / "out", read_study(file), list[str]()

    def interrupt(name: str) -> None:
        begun.append(name)
        if len(begun) == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_study(study, out, on_point=interrupt)  # type: ignore[arg-type]
    assert cli.main(["study", str(file), "--out", str(out)]) == 0
    assert all(name not in capsys.readouterr().out for name in begun[:4])
    folder = StudyFolder(out)
    lines = {line["name"]: line for line in folder.lines()}
    assert not Search(study, [*lines.values()]).wanted()
    for line in lines.values():
        assert line["budget"] <= line["flops"] < 1.6 * line["budget"]
        assert line["bytes_seen"] > 0
        assert 0 < line["validation_bits"] < 9
    blt = [line for line in lines.values() if line["family"] == "BLT, entropy"]
    for line in blt:
        patcher = lines[f"patcher-tiny-{line['budget'] / 10:g}-size0-lr0.01-s0".replace("+0", "")]
        assert line["patcher_training_flops"] == patcher["flops"] > 0
    chosen = {point.name for point in Search(study, [*lines.values()]).chosen()}
    assert {line["name"] for line in folder.lines(SCORES)} == chosen
    assert {line["name"] for line in folder.lines(COSTS)} <= chosen
    for name, line in lines.items():
        kept = (folder.run(name) / "checkpoint" / "model.safetensors").is_file()
        assert kept == (name in chosen or line["family"].startswith("patcher")), name


def test_a_run_that_gives_up_counts_as_the_worst_and_the_study_goes_on(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trained = training.train_recipe

    def train(recipe: Recipe, *rest: Any, **more: Any) -> Any:
        if recipe.train.lr == 5e-2:
            raise DivergedError("10 steps in a row")
        return trained(recipe, *rest, **more)

    monkeypatch.setattr(training, "train_recipe", train)
    out = tmp_path / "out"
    study = read_study(file).until(1e8)
    run_study(study, out)
    lines = StudyFolder(out).lines()
    given_up = [line for line in lines if line["lr"] == 5e-2]
    assert given_up
    for line in lines:
        assert (line["validation_bits"] is None) == (line in given_up)
    assert "gave up, and counts as the worst: 10 steps in a row" in caplog.text
    assert {point.lr for point in Search(study, lines).chosen()} <= {2e-3, 1e-2}
    write_report(study, out)
    assert "5e-2" not in (out / "table.md").read_text()

    monkeypatch.setattr(training, "train_recipe", lambda *_, **__: train(recipe_of(5e-2)))
    with pytest.raises(DivergedError):  # of a patcher, whom others wait for
        run_study(study, tmp_path / "again")


def recipe_of(lr: float) -> Recipe:
    return Recipe("byte", DataConfig(("text",)), TrainConfig(steps=1, lr=lr))


def test_a_study_stops_at_a_budget_times_what_it_compared_and_goes_on_from_there(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["study", str(file), "--out", str(out), "--until", "1e8"]) == 0
    folder, small = StudyFolder(out), read_study(file).until(1e8)
    lines = folder.lines()
    assert {line["budget"] for line in lines} == {1e7, 1e8}  # the patcher's, and the models'
    chosen = {point.name for point in Search(small, lines).chosen()}
    assert {line["name"] for line in folder.lines(SCORES)} == chosen
    assert {line["name"] for line in folder.lines(COSTS)} == {n for n in chosen if n.endswith("s0")}
    assert "2e+08 FLOPs" not in (out / "table.md").read_text()
    begun: list[str] = []
    run_study(read_study(file), out, on_point=begun.append)  # type: ignore[arg-type]
    assert begun
    assert all("1e8" not in name for name in begun)
    assert cli.main(["study", str(file), "--out", str(out), "--until", "3e8"]) == 2
    assert "no budget of 3e8 FLOPs; there are 1e8, 2e8" in capsys.readouterr().err
    assert cli.main(["study", str(file), "--out", str(out), "--figures", "--until", "1e8"]) == 2
    assert "--figures runs nothing: leave out --until" in capsys.readouterr().err


def test_a_family_runs_alone_as_far_as_it_is_asked_to_and_is_shown_beside_none(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, alone = tmp_path / "out", ["study", str(file), "--out", str(tmp_path / "out")]
    assert cli.main([*alone, "--families", "flat"]) == 0
    lines = StudyFolder(out).lines()
    assert {line["family"] for line in lines} == {"flat"}
    assert {line["budget"] for line in lines} == {*read_study(file).budgets}
    rows = [line for line in (out / "table.md").read_text().splitlines() if "| flat |" in line]
    assert {row.split(" | ")[1] for row in rows if row.startswith("| flat")} >= {"1e+08", "2e+08"}
    assert cli.main([*alone, "--families", "flat", "round"]) == 2
    assert "no family 'round'; known: " in capsys.readouterr().err
    assert cli.main([*alone, "--figures", "--families", "flat"]) == 2
    assert "--figures runs nothing: leave out --families" in capsys.readouterr().err


def test_what_is_asked_of_larger_budgets_alone_is_left_out_before_them(file: Path) -> None:
    letters = "[[characters]]\nname = 'letters'\n"
    for section in (ASKED, f"{letters}budgets = [2e8]\n", f"{ASKED}name = 'b'\nbudgets = [2e8]\n"):
        changed(file, "[base.data]", f"{section}[base.data]")
    changed(file, "[base.data]", f"{ASKED}name = 'both'\nbudgets = [1e8, 2e8]\n[base.data]")
    whole = read_study(file)
    assert whole.until(2e8) == whole
    small = whole.until(1e8)
    assert {one.name: one.budgets for one in small.evaluations} == {"utf8": (), "both": (1e8,)}
    assert small.characters == ()


def test_scores_are_of_every_piece_and_the_same_for_all(done: Path) -> None:
    folder = StudyFolder(done.parent / "out")
    heldout = folder.json("heldout.json")
    for line in folder.lines(SCORES):
        for kind, texts in heldout.items():
            for name, of in texts.items():
                assert len(line["bits"][kind][name]) == len(of["pieces"])
                assert sum(of["pieces"]) == of["bytes"]
        assert line["bits"]["strange"]["one"] == line["bits"]["strange"]["two"]
    assert heldout["strange"]["one"]["bytes"] == 200
    overlap = folder.json("overlap.json")
    assert overlap["known"]["bottles"] > 0.9
    assert overlap["strange"]["one"] == 0


def test_two_processes_share_the_work(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    alone = ["--until", "1e8"]
    command = [sys.executable, "-m", "blt", "study", str(file), "--out", str(out), *alone]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        worker.communicate(timeout=300)
    assert [worker.returncode for worker in workers] == [0, 0]
    names = [line["name"] for line in StudyFolder(out).lines()]
    assert len(names) == len(set(names))
    assert not Search(read_study(file).until(1e8), StudyFolder(out).lines()).wanted()


def test_a_kill_while_a_run_is_judged_loses_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, study = tmp_path / "out", read_study(file).until(1e8)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "validation", killed)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, out, families=["flat"])
    (begun,) = (out / "runs").iterdir()
    run_study(study, out, families=["flat"])
    logged = (begun / "metrics.jsonl").read_text().splitlines()
    steps = [e["step"] for e in map(json.loads, logged) if e["event"] == "train"]
    assert steps == sorted(set(steps))


def test_nothing_is_asked_or_timed_after_a_limited_time(
    done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy, out = copied(done, tmp_path)
    (out / COSTS).unlink()
    copy.write_text(copy.read_text() + ASKED)
    run_study(read_study(copy), out, seconds=1e-9)
    assert not (out / EVALS).exists()
    assert not (out / COSTS).exists()
    assert "what was not asked or timed in 1e-09 seconds is left out" in caplog.text


def test_lines_alone_are_enough_to_go_on_and_lost_weights_are_named(
    done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, kept = done.parent / "out", tmp_path / "out"
    kept.mkdir()
    for file in out.glob("*.json*"):
        shutil.copy(file, kept)
    (kept / COSTS).unlink()
    run_study(read_study(done), kept)
    assert StudyFolder(kept).lines() == StudyFolder(out).lines()
    assert StudyFolder(kept).lines(COSTS) == []
    assert "the weights of" in caplog.text


def test_a_run_comes_out_the_same_when_it_is_trained_again_from_scratch(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = StudyFolder(done.parent / "out").lines()
    blt = next(line["name"] for line in lines if line["family"] == "BLT, entropy")
    again = [str(done), str(done.parent / "out"), blt, "--out", str(tmp_path / "again")]
    with pytest.raises(SystemExit) as ended:
        retrain.main(again)
    line = json.loads(capsys.readouterr().out)
    assert (ended.value.code, line["name"], line["source_apart"]) == (0, blt, 0)
    trained = StudyFolder(tmp_path / "again" / "1").lines()
    assert [line["family"] for line in trained] == ["patcher tiny", "BLT, entropy"]

    other = tmp_path / "other"
    other.mkdir()
    wrong = [line | {"validation_bits": line["validation_bits"] + 0.001} for line in lines]
    (other / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in wrong))
    with pytest.raises(SystemExit) as ended:
        retrain.main([again[0], str(other), *again[2:]])
    assert ended.value.code == 1
    with pytest.raises(SystemExit) as ended:
        retrain.main([*again[:2], "patcher-tiny-1e7-size0-lr0.01-s0", *again[3:]])
    assert ended.value.code == 2
    assert "has no run 'patcher-tiny" in capsys.readouterr().err


def test_a_compiled_training_is_timed_compiled_after_its_operations_are_counted(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []

    def noted(name: str) -> None:
        real = getattr(costs, name)
        monkeypatch.setattr(costs, name, lambda *of: began.append(name) or real(*of))

    for name in ("_executed", "megabyte_seconds"):
        noted(name)
    monkeypatch.setattr(costs, "TIMED", 1)
    monkeypatch.setattr(
        costs, "make_fast", lambda _, config: began.append(f"compile={config.compile}")
    )
    study, out = read_study(done), StudyFolder(done.parent / "out")
    trainings = training.Training(study, out, timing.Clock(None), None)
    point = Search(study, out.lines()).chosen()[0]
    recipe = replace(point.recipe, train=replace(point.recipe.train, compile=True))
    model = trainings.model(point.name, recipe)
    found = costs.costs_of(model, recipe, trainings.sources(recipe))
    assert began == ["_executed", "compile=True", "megabyte_seconds"]
    assert found["executed_flops_per_byte"] > found["flops_per_byte"] > 0


def test_a_change_reaches_every_run(file: Path) -> None:
    study = read_study(file, ("train.device='cuda:1'",))
    points = Search(study, []).wanted()
    assert {point.recipe.train.device for point in points} == {"cuda:1"}


def test_a_tokenizer_is_learned_once_for_all_runs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[int] = []
    train = ByteTokenizer.train

    def count(texts: Any, vocab_size: int) -> Any:
        learned.append(vocab_size)
        return train(texts, vocab_size)

    monkeypatch.setattr(ByteTokenizer, "train", count)
    changed(file, 'kind = "byte" }\nsizes', 'kind = "token" }\nsizes')
    changed(file, '["byte_model.dim=', '["token_model.vocab_size=300", "byte_model.dim=')
    text = file.read_text().replace('"byte_model.', '"token_model.')
    file.write_text(text)
    run_study(read_study(file).until(1e8), tmp_path / "out", families=["flat"])
    assert learned == [300]


def test_a_run_beyond_its_budget_is_named(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed(file, "budgets = [1e8, 2e8]", "budgets = [8e6]")
    changed(file, "seeds = [2, 1]\nrate_tries = [3, 1]", "seeds = [1]")
    run_study(read_study(file), tmp_path / "out", families=["flat"])
    assert "times its budget of FLOPs" in caplog.text


@given(st.floats(1e6, 1e18), st.floats(1e-7, 1.0))
def test_names_of_runs_are_short_and_say_what_differs(budget: float, lr: float) -> None:
    recipe = Recipe("byte", DataConfig(("text",)), TrainConfig(steps=1, lr=lr))
    name = Point("BLT, entropy", budget, 3, lr, 1, recipe).name
    pattern = r"(.*?)-([0-9.e]+)-size3-lr([0-9.e-]+)-s1"
    family, flops, rate = re.fullmatch(pattern, name).groups()  # type: ignore[union-attr]
    assert family == "blt-entropy"
    assert float(flops) == pytest.approx(budget, rel=1e-5)
    assert float(rate) == pytest.approx(lr, rel=1e-5)
    assert not re.search(r"e\+|e-?0", name.removeprefix("blt-entropy"))
