"""A study teaches the models that it compares to answer questions, and says what that took."""

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

from blt import cli
from blt.errors import UserError
from blt.evals.characters import strings
from blt.study import read_study, run_study
from blt.study.characters import best_rate, turns, words_for
from blt.study.characters_report import characters_sections
from blt.study.folder import CHARACTERS, StudyFolder
from blt.study.report import write_report
from tools.publish import publish

ROOT = Path(__file__).parents[2]
STUDY = """
budgets = [2e7]
seeds = [2]
lrs = [1e-2]
first_lr = 0
validation_bytes = 400
[base.data]
sources = [{text}]
context_bytes = 64
batch_bytes = 256
heldout = 0.2
[base.train]
evals = 0
precision = "float32"
sample_prompts = []
[heldout.known]
bottles = [{text}]
[[families]]
name = "flat"
group = "bytes"
recipe = {{ kind = "byte" }}
sizes = [["byte_model.dim=8", "byte_model.heads=1", "byte_model.layers=1", "byte_model.ff_dim=16"]]
[[families]]
name = "BPE"
group = "tokens"
recipe = {{ kind = "token", token_model = {token} }}
sizes = [[]]
"""
ASKED = """
[[characters]]
name = "letters"
kinds = ["last", "count"]
lrs = [1e-3, 1e-2]
seeds = 3
steps = 4
questions = 4
every = 2
heldout = 5
split = 0.5
"""
LAST = """
[[characters.evaluations]]
name = "end of a line"
task = "answers"
paths = [{answers}]
beside = ["BPE"]
"""


TOKEN = "{ vocab_size = 300, dim = 8, heads = 1, layers = 1, ff_dim = 16 }"


def written(folder: Path, asked: str = "") -> Path:
    """The file of a study of two families, each model trained in a moment."""
    text = folder / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, " for n in range(200)))
    path = folder / "study.toml"
    path.write_text(STUDY.format(text=json.dumps(str(text)), token=TOKEN) + asked)
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has run to its end, questions and all: its file, and ``out`` beside it."""
    folder = tmp_path_factory.mktemp("study")
    answers = folder / "answers.jsonl"
    answers.write_text('{"prompt": "Last of ab:", "completion": " b\\n"}\n' * 9)
    file = written(folder, ASKED + LAST.format(answers=json.dumps(str(answers))))
    begun: list[str] = []

    def killed(name: str) -> None:
        begun.append(name)
        if len([name for name in begun if name.startswith("letters ")]) == 4:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_study(read_study(file), file.parent / "out", on_point=killed)  # type: ignore[arg-type]
    assert len(StudyFolder(file.parent / "out").lines(CHARACTERS)) == 3
    run_study(read_study(file), file.parent / "out")
    return file


def lines_of(done: Path) -> list[dict[str, Any]]:
    return StudyFolder(done.parent / "out").lines(CHARACTERS)


def test_every_model_is_taught_once_at_every_rate_and_then_with_every_seed(done: Path) -> None:
    lines = lines_of(done)
    assert len({line["name"] for line in lines}) == len(lines) == 3 * (2 + 3)
    for family, splits in (("flat", [0.0]), ("BPE", [0.0, 0.5])):
        for split in splits:
            own = [x for x in lines if (x["family"], x["split"]) == (family, split)]
            search = [line for line in own if line["part"] == "search"]
            assert [(line["lr"], line["seed"]) for line in search] == [(1e-3, 0), (1e-2, 0)]
            tests = [line for line in own if line["part"] == "test"]
            assert {line["lr"] for line in tests} == {best_rate(search)}
            models = [line["run"][-2:] for line in tests]
            assert (models, [x["seed"] for x in tests]) == (["s0", "s1", "s0"], [0, 1, 2])
    for line in lines:
        assert [look["step"] for look in line["looks"]] == [0, 2, 4]
        assert line["looks"][0]["right"].keys() == {"last", "count"}
        assert line["looks"][-1]["bytes"] > 0
    read = {(line["part"], line["seed"]): {} for line in lines}  # type: ignore[var-annotated]
    for line in lines:  # all families learn from the same questions
        read[line["part"], line["seed"]][line["family"]] = line["looks"][-1]["bytes"]
    assert all(len(set(of.values())) == 1 for of in read.values())


def test_the_table_says_what_it_took(done: Path) -> None:
    paths = write_report(read_study(done), done.parent / "out")
    table = (done.parent / "out" / "table.md").read_text()
    assert "## letters at 2e+07 FLOPs: steps until 90 % are right" in table
    assert re.search(r"\| BPE, 50 % split \| 0\.0\d+\* \| 3 \| never \(\d+ %\) \|", table)
    assert "letters-2e7.png" in {path.name for path in paths}


def test_lines_are_published_beside_their_table_and_without_weights(
    done: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="name a study's folder"):
        publish(done, tmp_path, tmp_path)
    written = publish(done, done.parent / "out", tmp_path)
    lines, page = tmp_path / "results" / "out", tmp_path / "docs" / "results" / "out"
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {
        *written,
        lines / "table.md",
    }
    assert (page / "table.md").read_bytes() == (lines / "table.md").read_bytes()
    assert (page / "letters-2e7.png").stat().st_size > 1000
    assert {path.suffix for path in lines.iterdir()} == {".jsonl", ".json", ".csv", ".md"}
    for path in lines.glob("*.jsonl"):
        assert path.read_bytes() == (done.parent / "out" / path.name).read_bytes()


def test_cells_recompute_without_code_of_the_study_and_a_changed_one_is_found(
    done: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(done.parent / "out", tmp_path / "out"))
    lines = lines_of(done)
    best = {(x["family"], x["split"]): x["lr"] for x in lines if x["part"] == "test"}
    for line in lines:  # as if something had been learned, fastest at the rate that was found
        slow = line["lr"] != best[line["family"], line["split"]]
        for look in line["looks"]:
            look["right"] = {"last": look["step"] / 4, "count": look["step"] / (8 if slow else 4.2)}
    (out / CHARACTERS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(read_study(done), out)
    command = [sys.executable, "-m", "tools.recompute", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    table = (out / "table.md").read_text()
    assert "| last | 4 [4, 4] |" in table
    (out / "table.md").write_text(table.replace("| last | 4 [4, 4] |", "| last | 2 [2, 2] |"))
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, "last, flat: 2 [2, 2]" in ended.stdout) == (1, True)


def test_evaluations_are_asked_before_and_after_and_of_those_that_the_table_shows(
    done: Path,
) -> None:
    for line in lines_of(done):
        assert ("asked" in line) == (line["part"] == "test")
    asked = [line["asked"] for line in lines_of(done) if "asked" in line]
    assert all(one.keys() == {"before", "after"} for one in asked)
    bits = {when: [one[when]["end of a line"][0]["row"] for one in asked] for when in asked[0]}
    assert all(
        b["bits_per_byte"] != a["bits_per_byte"]
        for b, a in zip(bits["before"], bits["after"], strict=True)
    )
    write_report(read_study(done), done.parent / "out")
    table = (done.parent / "out" / "table.md").read_text()
    for when in ("before", "after"):
        heading = f"## letters: end of a line {when} at 2e+07 FLOPs: exact"
        assert f"{heading}\n" in table
        assert f"{heading}, difference to BPE\n" in table
    assert "| end of a line | flat | BPE | BPE, 50 % split |" in table.replace(
        "letters: end of a line after", "end of a line"
    )


def test_words_of_other_texts_are_not_asked_about(tmp_path: Path) -> None:
    words = sorted(strings(1000))
    for name, some in (("all", words), ("few", words[::3])):
        (tmp_path / f"{name}.tsv").write_text("\t".join(some))
    found = words_for((str(tmp_path / "all.tsv"),), (str(tmp_path / "few.tsv"),))
    left = [*found.train, *found.search, *found.test]
    assert sorted(left) == sorted({*words} - {*words[::3]})


def test_lines_that_are_older_than_a_key_are_taken_for_what_it_is_when_left_out(
    done: Path,
) -> None:
    of = read_study(done).characters[0]
    lines = lines_of(done)
    for line in lines:
        del line["settings"]["unseen"]
    assert turns(of, [], lines) == []
    with pytest.raises(UserError, match="letters: had another unseen"):
        turns(replace(of, unseen=("some.txt",)), [], lines)


def looks(*shares: float) -> list[dict[str, Any]]:
    return [
        {"step": 10 * n, "bytes": 100 * n, "flops": 1e7 * n, "nats": None, "right": {"a": share}}
        for n, share in enumerate(shares)
    ]


def line(part: str, lr: float, seed: int, *shares: float) -> dict[str, Any]:
    settings = {"goal": 0.9, "steps": 30, "every": 10, "questions": 8, "heldout": 5}
    key = {"name": f"{part} {lr} {seed}", "characters": "q", "family": "flat", "budget": 1e9}
    key |= {"part": part, "lr": lr, "seed": seed, "split": 0.0}
    return {**key, "settings": settings, "looks": looks(*shares)}


def test_cells_are_medians_over_seeds_at_the_rate_that_was_found_with_other_words() -> None:
    search = [
        line("search", 1e-3, 0, 0, 0.5, 0.89, 0.89),
        line("search", 2e-3, 0, 0, 0.1, 0.1, 0.9),
        line("search", 4e-3, 0, 0, 0.0, 0.0, 0.0),
    ]
    assert best_rate(search) == 2e-3
    assert best_rate(search[::2]) == 1e-3
    ended = [line("search", 1e-3, 0, 0, 0.5, 1.0), line("search", 2e-3, 0, 0, 0.5, 0.9, 0.9, 0.9)]
    assert best_rate(ended) == 1e-3  # all was right, and stays so
    tests = [line("test", 2e-3, 0, 0, 1), line("test", 2e-3, 1, 0, 0, 1)]
    tests += [line("test", 2e-3, 2, 0, 0, 0, 0.5), line("test", 1e-3, 0, 1)]
    text = "\n".join(characters_sections([*search, *tests], ["deep", "flat"]))
    row = "| flat | 0.002 | 3 | 20 [10, never] | 0.00 [0.00, never] |"
    assert f"{row} 2.00e+07 [1.00e+07, never] | 100 [50, 100] |" in text
    assert "| a | 20 [10, never] |" in text


def test_models_of_a_folder_are_taught_without_the_rest_of_the_study(
    done: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(done.parent / "out", tmp_path / "out"))
    before = (out / "results.jsonl").read_bytes()
    (out / "scores.jsonl").unlink()
    (out / CHARACTERS).unlink()
    study, asked = tmp_path / "study.toml", tmp_path / "asked.toml"
    study.write_text(done.read_text().split("[[characters]]")[0])
    asked.write_text(ASKED.replace("seeds = 3", 'seeds = 1\nfamilies = ["flat"]'))
    assert cli.main(["study", str(study), "--out", str(out), "--characters", str(asked)]) == 0
    assert len(StudyFolder(out).lines(CHARACTERS)) == 3
    assert (out / "results.jsonl").read_bytes() == before
    assert not (out / "scores.jsonl").exists()


def test_lines_of_other_questions_are_not_taken_for_these(done: Path, tmp_path: Path) -> None:
    of = replace(read_study(done).characters[0], steps=5)
    with pytest.raises(UserError, match="letters: had another steps; give it another name"):
        turns(of, [], lines_of(done))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"count"', '"counts"', "kinds: there is no 'counts'; did you mean 'count'"),
        ('"count"', '"last"', "kinds: name each once"),
        ("lrs = [1e-3, 1e-2]", "lrs = [1e-2, 1e-3]", "lrs must be positive and ascending"),
        ("steps = 4", "steps = 0", "steps must be at least 1"),
        ("split = 0.5", "split = 5", "split must lie in"),
        ("split = 0.5", "goal = 0", "goal must be above 0"),
        ("every = 2", "evry = 2", "did you mean 'every'"),
        ("seeds = 3", 'evaluations = [{ task = "cut" }]', "unknown task 'cut'"),
        ("seeds = 3", 'evaluations = [{ task = "utf8", budgets = [2e7] }]', "utf8: budgets: those"),
        ("seeds = 3", 'evaluations = [{ task = "utf8", beside = ["flt"] }]', "beside: no 'flt'"),
        ("seeds = 3", "evaluations = [{task='utf8'}, {task='utf8'}]", "a name of its own"),
        ("seeds = 3", 'families = ["flatt"]', "families: no 'flatt'; did you mean 'flat'"),
        ("seeds = 3", "budgets = [1e8]", "letters: budgets: 1e8 is none of the study"),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in ASKED
    with pytest.raises(UserError, match=message):
        read_study(written(tmp_path, ASKED.replace(old, new)))


def test_files_and_options_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, asked = written(tmp_path), tmp_path / "asked.toml"
    asked.write_text(ASKED + "\n[base]\n")
    with pytest.raises(UserError, match=r"must have .*characters.*, and nothing else"):
        read_study(study, characters=asked)
    with pytest.raises(UserError, match=r"name a file with \[\[characters"):
        read_study(study, characters=tmp_path / "none.toml")
    command = ["study", str(study), "--figures", "--characters", str(asked)]
    assert cli.main(command) == 2
    assert "leave out --characters" in capsys.readouterr().err
    missing = ASKED + 'words = ["nothing.txt"]\n'
    with pytest.raises(UserError, match=r"characters: letters: nothing\.txt: no such file"):
        run_study(read_study(written(tmp_path, missing)), tmp_path / "out")
