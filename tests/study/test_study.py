"""A study runs its grid, goes on after a kill, and draws what it found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt import cli
from blt.errors import UserError
from blt.study import Point, read_results, read_study, run, run_study
from blt.study.figures import score, table, write_figures
from blt.study.fit import PowerLaw, band, crossings, fit
from blt.study.folder import StudyFolder
from blt.study.heldout import Heldout, warn_of_unscored
from blt.train import DataConfig, Recipe, TrainConfig

STUDY = """
budgets = [2e7, 6e7]
seeds = [2, 1]
lrs = [1e-3, 1e-2]
heldout_bytes = 500
[base.data]
sources = [{text}]
context_bytes = 64
batch_bytes = 256
[base.train]
lr = 1e-2
evals = 1
[heldout]
same = [{text}]
other = [{other}]
[[families]]
name = "byte"
recipe = {{ kind = "byte" }}
sizes = [
    ["byte_model.dim=16", "byte_model.heads=2", "byte_model.layers=1", "byte_model.ff_dim=32"],
    ["byte_model.dim=32", "byte_model.heads=2", "byte_model.layers=1", "byte_model.ff_dim=32"],
]
[[families]]
name = "BLT, space"
recipe = {{ kind = "blt", model = {{ patching = {{ rule = "space" }} }} }}
sizes = [{blt}, {blt}]
"""
BLT = [
    f"model.{change}"
    for change in (
        *("local_dim=16", "local_heads=2", "encoder_ff_dim=32", "decoder_layers=1"),
        *("decoder_ff_dim=32", "global_dim=32", "global_heads=2", "global_layers=1"),
        *("global_ff_dim=64", "hash_rows=100"),
    )
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    text, other = tmp_path / "text.txt", tmp_path / "other.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, " for n in range(400)))
    other.write_text("".join(f"one more for number {n} of these. " for n in range(100)))
    names = {"text": json.dumps(str(text)), "other": json.dumps(str(other))}
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(**names, blt=json.dumps(BLT)))
    return path


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def test_a_study_runs_its_grid_and_goes_on_where_it_was_killed(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    study = read_study(file)
    begun = []

    def interrupt(point: Point, number: int, count: int) -> None:
        assert count == (4 if len(begun) < 4 else 6)
        begun.append(point.name)
        if number == 4 and count == 6:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_study(study, out, on_point=interrupt)  # type: ignore[arg-type]
    assert cli.main(["study", str(file), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "run 4 of 6" in shown
    assert "run 3 of 6" not in shown
    results = read_results(out)
    assert [(r["family"], r["budget"], r["seed"]) for r in results] == [
        *(("byte", 2e7, 0), ("BLT, space", 2e7, 0), ("byte", 2e7, 1), ("BLT, space", 2e7, 1)),
        *(("byte", 6e7, 0), ("BLT, space", 6e7, 0)),
    ]
    assert [name for name in begun[:4] if name in {result["name"] for result in results}] == [
        result["name"] for result in results[:2]
    ]  # the best runs of the search are results
    tried = [line for line in StudyFolder(out).read() if line["name"] in begun[:4]]
    assert len(tried) == 4
    for result in results:
        of_family = [run for run in tried if run["family"] == result["family"]]
        best = min(of_family, key=lambda run: float(run["heldout_bits_per_byte"]))
        assert result["lr"] == best["lr"]
        assert result["flops"] >= result["budget"]
        assert result["flops"] < 1.5 * result["budget"]
        training = 3 * result["inference_flops_per_byte"] * result["bytes_seen"]
        assert training == pytest.approx(result["flops"])
        assert result["bits_per_byte"].keys() == {"same", "other"}
        assert 0 < score(result) < 9
    overlap = json.loads((out / "overlap.json").read_text())
    assert overlap["same"] > 0.9
    assert overlap["other"] == 0
    for name in ("bits-over-flops.png", "bits-over-seconds.png", "table.md"):
        assert (out / name).stat().st_size > 0
    other = sum(len(f"one more for number {n} of these. ") for n in range(100))
    assert f"| other | 1 of 1 | 500 of {other:,} |" in (out / "table.md").read_text()
    assert "±" in table(results)


def test_a_kind_of_text_of_which_some_documents_are_not_scored_is_named(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "two").mkdir()
    for name in "ab":
        (tmp_path / "two" / f"{name}.txt").write_text(f"{name} is one of two. " * 100)
    study = read_study(write(file, file.read_text().replace("other.txt", "two")))
    scored = Heldout.read(study).scored(study.heldout_bytes)
    assert scored["other"] == {"documents": 1, "of_documents": 2, "bytes": 500, "of_bytes": 3400}
    warn_of_unscored(study, scored)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "heldout.other: 1 of 2 documents are scored" in warning


def test_a_change_reaches_every_run(file: Path) -> None:
    study = read_study(file, ("train.device='cuda:1'",))
    assert {point.recipe.train.device for point in study.points()} == {"cuda:1"}


def test_two_processes_share_the_runs_of_a_study(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "blt", "study", str(file), "--out", str(out)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    shown = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    begun = [line for text in shown for line in text.splitlines() if line.startswith("run ")]
    assert len(begun) == 8  # four of the search, two of them results; four more
    assert len(set(begun)) == 8
    assert len({result["name"] for result in read_results(out)}) == 6


def test_a_kill_while_a_run_is_scored_loses_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, study = tmp_path / "out", read_study(file)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "_scores", killed)
        with pytest.raises(KeyboardInterrupt, match="stopped in run 1; the same command"):
            run_study(study, out)
    (begun,) = (out / "runs").iterdir()
    results = run_study(study, out)
    assert len(results) == 6
    assert all(result["bytes_seen"] > 0 for result in results)
    logged = (begun / "metrics.jsonl").read_text().splitlines()
    steps = [e["step"] for e in map(json.loads, logged) if e["event"] == "train"]
    assert steps == sorted(set(steps))


def test_a_changed_study_does_not_reuse_results(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_study(read_study(file), out)
    precise = file.read_text().replace("evals = 1", 'evals = 1\nprecision = "float32"')
    assert run_study(read_study(write(file, precise)), out) == read_results(out)
    for old, new, key in (
        ("batch_bytes = 256", "batch_bytes = 128", "data.batch_bytes"),
        ("byte_model.dim=32", "byte_model.dim=64", "byte_model.dim"),  # at the larger budget alone
    ):
        changed = precise.replace(old, new).replace("[1e-3, 1e-2]", "[1e-3, 1e-2, 2e-2]")
        with pytest.raises(UserError, match=f"had another {key}"):
            run_study(read_study(write(file, changed)), out)
    file.write_text(precise.replace("_bytes = 500", "_bytes = 400"))
    with pytest.raises(UserError, match="scored on other text"):
        run_study(read_study(file), out)


def test_a_wider_search_redoes_only_families_with_a_better_learning_rate(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, text = tmp_path / "out", file.read_text()
    file.write_text(text.replace("lrs = [1e-3, 1e-2]", "lrs = [1e-4, 1e-5]"))
    before = run_study(read_study(file), out)
    assert "byte at 2e+07 FLOPs: its best learning rate, 0.0001, is the highest" in caplog.text
    file.write_text(text.replace("lrs = [1e-3, 1e-2]", "lrs = [1e-5, 1e-4, 1e-2]"))
    lines = StudyFolder(out).read()
    begun: list[str] = []

    def keep(point: Point, *_: int) -> None:
        begun.append(point.name)

    # BLT's old rate stays the best, whatever the new one gives.
    with pytest.MonkeyPatch.context() as patch:
        best = {"byte": 1e-2, "BLT, space": 1e-4}
        patch.setattr(run, "best_lr", lambda _, point: best[point.family])
        after = run_study(read_study(file), out, on_point=keep)  # type: ignore[arg-type]
    assert begun == [
        *("byte-2e7-lr0.01-s0", "blt-space-2e7-lr0.01-s0"),  # the first one is a result too
        *("byte-2e7-lr0.01-s1", "byte-6e7-lr0.01-s0"),
    ]
    assert StudyFolder(out).read()[: len(lines)] == lines
    assert [r for r in after if r["family"] != "byte"] == [
        r for r in before if r["family"] != "byte"
    ]
    assert {r["lr"] for r in after if r["family"] == "byte"} == {1e-2}
    assert (out / "runs" / "byte-6e7-lr0.0001-s0" / "checkpoint").is_dir()
    assert cli.main(["study", str(file), "--out", str(out), "--figures"]) == 0
    begun.clear()
    file.write_text(text.replace("lrs = [1e-3, 1e-2]", "lrs = [1e-4, 1e-5]"))
    assert run_study(read_study(file), out, on_point=keep) == before  # type: ignore[arg-type]
    assert begun == []


def test_a_rate_is_searched_again_at_a_budget_where_a_family_names_some(
    file: Path, tmp_path: Path
) -> None:
    out, text = tmp_path / "out", file.read_text()
    before = {result["name"]: result for result in run_study(read_study(file), out)}
    (used,) = (r["lr"] for r in before.values() if (r["family"], r["budget"]) == ("byte", 6e7))
    lrs = [1e-6, used]  # the new one is surely worse
    begun: list[str] = []

    def train(point: Point, out: StudyFolder, *_: object) -> object:
        begun.append(point.name)
        return trained(point, out, None)

    trained = run._train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_train", train)
        changed = text.replace('kind = "byte" }', f'kind = "byte" }}\nlrs = [[], {lrs}]')
        file.write_text(changed)
        after = run_study(read_study(file), out)
        assert begun == ["byte-6e7-lr1e-6-s0"]  # the other has been trained
        assert after == list(before.values())

        better = 2e-3 if used == 1e-3 else 5e-3
        file.write_text(changed.replace(str(lrs), str([*lrs, better])))
        patch.setattr(run, "best_lr", lambda *_: better)
        again = {result["name"]: result for result in run_study(read_study(file), out)}
    assert begun[1] == f"byte-6e7-lr{better:g}-s0"
    assert begun[1:].count(begun[1]) == 1  # the search's run is the result, with its model
    assert again[begun[1]]["lr"] == better
    assert (out / "runs" / begun[1] / "checkpoint").is_dir()


def test_the_best_rate_holds_until_the_next_search(file: Path) -> None:
    text = file.read_text().replace("[2e7, 6e7]", "[2e7, 6e7, 8e7]").replace("[2, 1]", "[1, 1, 1]")
    file.write_text(text.replace('    ["byte_model.dim=32', '    [],\n    ["byte_model.dim=32'))
    made = [(2e7, 1e-3, 5.0), (2e7, 1e-2, 4.0), (6e7, 1e-4, 3.0), (6e7, 1e-3, 3.5)]
    search = [
        {"family": "byte", "budget": budget, "lr": lr, "heldout_bits_per_byte": bits}
        for budget, lr, bits in made
    ]
    points = [point for point in read_study(file).points() if point.family == "byte"]
    assert [run.best_lr(search, point) for point in points] == [1e-2, 1e-4, 1e-4]
    assert run.best_lr([], points[0]) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'recipe = { kind = "blt",',
            'recipe = { kind = "blt", entropy_model = "nowhere",',
            "BLT, space: nowhere: no such folder",
        ),
        (
            'kind = "byte" }',
            'kind = "token", tokenizer = "nothing.json" }',
            "byte: tokenizer: nothing.json",
        ),
        ("other = [", 'other = ["nothing.txt", ', "heldout.other: nothing.txt: no such file"),
        ("sources = [", 'sources = ["nothing.txt", ', "base.data.sources: nothing.txt: no such"),
    ],
)
def test_what_would_stop_a_later_run_stops_the_study_at_once(
    file: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = file.read_text().replace(old, new)
    if "token" in new:
        text = text.replace("byte_model.dim", "token_model.dim").replace(
            "byte_model.", "token_model."
        )
    with pytest.raises(UserError, match=message):
        run_study(read_study(write(file, text)), tmp_path / "out")
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_a_run_beyond_its_budget_is_named(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = read_study(file)
    families = tuple(replace(family, sizes=family.sizes[:1]) for family in study.families)
    short = replace(study, budgets=(2e5,), seeds=(1,), lrs=(), families=families)
    results = run_study(short, tmp_path / "out")
    assert results[0]["flops"] > 1.05 * 2e5
    assert "times its budget of FLOPs" in caplog.text
    write_figures(results, tmp_path / "out")
    assert f"| {results[0]['name']} | " in (tmp_path / "out" / "table.md").read_text()


def test_a_run_that_a_longer_search_made_worse_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def line(lr: float, bits: float) -> dict[str, object]:
        where = {"name": f"bpe-lr{lr:g}", "family": "BPE", "budget": 2e13, "seed": 0}
        return {**where, "lr": lr, "heldout_bits_per_byte": bits}

    now, worse, better = line(5e-3, 1.9), line(1e-3, 2.0), line(2e-3, 1.8)
    run.warn_of_worse([now], [worse, now, {**better, "seed": 1}])
    assert not caplog.text
    run.warn_of_worse([now], [worse, now, better])
    assert "give 'BPE' lrs at 2e+13 FLOPs" in caplog.text


def test_a_folder_of_before_is_drawn_whatever_its_runs_are_called(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    (tmp_path / "locks").mkdir()
    plan = {"scored": {}, "runs": {name: {} for name in ("2e13-bpe-0", "2e13-blt-0")}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    for name in reversed(plan["runs"]):
        study.append({"name": name, "family": name, "budget": 2e13, "lr": 1e-3})
    assert [result["name"] for result in read_results(tmp_path)] == list(plan["runs"])


@given(st.floats(1e6, 1e18), st.floats(1e-7, 1.0))
def test_names_of_runs_are_short_and_say_what_differs(budget: float, lr: float) -> None:
    recipe = Recipe("byte", DataConfig(("text",)), TrainConfig(steps=1, lr=lr))
    name = Point("BLT, entropy", budget, 1, recipe).name
    family, flops, rate = re.fullmatch(r"(.*?)-([0-9.e]+)-lr([0-9.e-]+)-s1", name).groups()  # type: ignore[union-attr]
    assert family == "blt-entropy"
    assert float(flops) == pytest.approx(budget, rel=1e-5)
    assert float(rate) == pytest.approx(lr, rel=1e-5)
    assert not re.search(r"e\+|e-?0", name.removeprefix("blt-entropy"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [2, 1]", "seeds = [2]", "seeds"),
        ("budgets = [2e7, 6e7]", "budgets = [6e7, 2e7]", "ascending"),
        ('kind = "byte" }', 'kind = "byte" }\nlrs = [[], [1e-3, 1e-3]]', "positive and different"),
        ('kind = "byte" }', 'kind = "byte" }\nlrs = [[], [], [1e-3]]', "more lists than sizes"),
        ("byte_model.dim=16", "byte_model.dims=16", "did you mean 'dim'"),
        ("byte_model.heads=2", "byte_model.heads=3", "multiple of"),
        ('name = "byte"', 'name = "BLT, space"', "two have the name 'BLT, space'"),
        ('name = "byte"', 'name = "BLT space"', "two runs would be called"),
        ("[heldout]", "[held]", "unknown key 'held'"),
        ('recipe = { kind = "byte" }', "", "recipe: Field required$"),
        ("heldout_bytes", "heldout_byte", "did you mean 'heldout_bytes'"),
    ],
)
def test_mistakes_name_what_is_wrong(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        read_study(file)


def test_nothing_can_be_drawn_before_a_run_has_ended(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["study", str(file), "--out", str(tmp_path / "none"), "--figures"]) == 2
    assert "no run has ended yet" in capsys.readouterr().err


def test_a_power_law_is_found_and_its_band_holds_it() -> None:
    chance = np.random.default_rng(0)
    flops = np.repeat([1e12, 3e12, 1e13, 3e13, 1e14], 3)
    exact = 1.2 + 40 * flops**-0.15
    found = fit(flops.tolist(), exact.tolist())
    at = np.geomspace(1e12, 1e14, 20)
    np.testing.assert_allclose(found(at), 1.2 + 40 * at**-0.15, rtol=5e-3)
    inside = []
    for seed in range(6):
        noisy = exact + chance.normal(0, 0.02, len(flops))
        low, high = band(flops.tolist(), noisy.tolist(), at, seed)
        assert (high - low).max() < 0.1
        inside.append((low <= 1.2 + 40 * at**-0.15) & (high >= 1.2 + 40 * at**-0.15))
    assert np.mean(inside) > 0.7


def test_a_crossing_of_two_power_laws_is_found() -> None:
    steep, flat = PowerLaw(0.5, 40, 0.15), PowerLaw(0.5, 10, 0.1)  # equal at 4 ** 20 FLOPs
    (found,) = crossings(steep, flat, 1e11, 1e14)
    assert found == pytest.approx(4**20, rel=1e-2)
    assert crossings(flat, steep, 1e11, 1e14) == []


def test_a_table_says_what_inference_costs_and_where_curves_cross(tmp_path: Path) -> None:
    def result(family: str, budget: float, bits: float) -> dict[str, object]:
        facts = {"flops": budget, "seconds": 1.0, "inference_flops_per_byte": 2.5e5}
        return {"family": family, "budget": budget, **facts, "bits_per_byte": {"a": bits}}

    budgets = (1e12, 1e13, 1e14)
    results = [
        *(result("steep", b, 0.5 + 40 * b**-0.15) for b in budgets),
        *(result("flat", b, 0.5 + 9 * b**-0.1) for b in budgets),
    ]
    write_figures(results, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| steep | 0.250 | 0.250 | 0.250 |" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| steep | flat |")]
    assert float(row.split("|")[3]) == pytest.approx((40 / 9) ** 20, rel=0.1)


def test_no_crossing_is_told_beyond_what_was_trained(tmp_path: Path) -> None:
    budgets = (1e11, 1e12, 5e12)  # the curves cross at 9e12
    results = [
        {"family": name, "budget": b, "flops": b, "seconds": 1.0, "bits_per_byte": {"a": bits(b)}}
        for name, bits in (
            ("steep", lambda b: 0.5 + 40 * b**-0.15),
            ("flat", lambda b: 0.5 + 9 * b**-0.1),
        )
        for b in budgets
    ]
    write_figures(results, tmp_path)
    assert "cross" not in (tmp_path / "table.md").read_text()


def test_a_study_of_one_budget_draws_a_row_for_each_family(tmp_path: Path) -> None:
    results = [
        {
            "family": f"family {i}",
            "budget": 1e9,
            "flops": 1e9,
            "seed": seed,
            "bits_per_byte": {"a": 1.0 + i},
        }
        for i in range(12)
        for seed in range(2)
    ]
    paths = write_figures(results, tmp_path)
    assert [path.name for path in paths] == ["bits-by-family.png", "table.md"]
    assert all(path.stat().st_size > 0 for path in paths)
