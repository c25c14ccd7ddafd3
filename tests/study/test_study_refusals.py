"""A study refuses what does not fit: mistakes in its file, and folders of another study."""

from __future__ import annotations

from pathlib import Path

import pytest

from blt import cli
from blt.data.segments import MemorySegments
from blt.errors import UserError
from blt.study import Search, read_study, run_study
from blt.study.folder import EVALS, StudyFolder
from blt.study.run import check_needs
from blt.study.timing import Clock
from blt.study.training import Training
from small_study import ASKED, WIDE, changed, copied


def test_a_changed_study_does_not_reuse_runs(done: Path, tmp_path: Path) -> None:
    file, out = copied(done, tmp_path)
    text = file.read_text()
    for old, new, key in (
        ("batch_bytes = 256", "batch_bytes = 128", "data.batch_bytes"),
        ("byte_model.dim=32", "byte_model.dim=64", "byte_model.dim"),
        ("share = 0.1", "share = 0.2", None),
    ):
        file.write_text(text)
        study = read_study(changed(file, old, new))
        if key is None:  # it has another name
            assert any("2e7" in point.name for point in Search(study, []).wanted())
            continue
        with pytest.raises(UserError, match=f"had another {key}"):
            run_study(study, out)
    file.write_text(text)
    with pytest.raises(UserError, match="not what this study scores"):
        run_study(read_study(changed(file, "strange = 200", "strange = 100")), out)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ff_dim = 16, sliding_window = 8", "ff_dim = 24, sliding_window = 8", "byte_model.ff_dim"),
        ("share = 0.1", "share = 0.2", "another entropy_model"),
        ("validation_bytes = 400", "validation_bytes = 500", "had validation_bytes 400"),
    ],
)
def test_a_patcher_or_validation_text_that_has_changed_needs_another_folder(
    done: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    copy, out = copied(done, tmp_path)
    with pytest.raises(UserError, match=message):
        run_study(read_study(changed(copy, old, new)), out)
    assert (out / "results.jsonl").read_bytes() == (
        done.parent / "out" / "results.jsonl"
    ).read_bytes()


def test_models_are_not_asked_in_two_ways_under_one_name(done: Path, tmp_path: Path) -> None:
    copy, out = copied(done, tmp_path)
    asked = copy.read_text() + ASKED + "limit = 2\n"
    copy.write_text(asked)
    run_study(read_study(copy), out)
    assert {line["settings"]["limit"] for line in StudyFolder(out).lines(EVALS)} == {2}
    copy.write_text(asked.replace("limit = 2", "limit = 3"))
    with pytest.raises(UserError, match="evaluations: utf8: had another limit; give it another"):
        run_study(read_study(copy), out)
    copy.write_text(asked.replace("limit = 2", "limit = 2\nbeside = ['flat']"))
    run_study(read_study(copy), out)  # what is compared may change


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("one = [", 'one = ["nothing.txt", ', "heldout.strange.one: nothing.txt: no such file"),
        ("sources = [", 'sources = ["nothing.txt", ', "base.data.sources: nothing.txt: no such"),
    ],
)
def test_what_would_stop_a_later_run_stops_the_study_at_once(
    file: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_study(read_study(changed(file, old, new)), tmp_path / "out")
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_an_entropy_model_that_is_not_there_stops_the_study_at_once(
    file: Path, tmp_path: Path
) -> None:
    changed(file, 'patcher = "tiny"\n', "")
    changed(file, 'kind = "blt"', 'kind = "blt"\nentropy_model = "nowhere"')
    with pytest.raises(UserError, match="BLT, entropy: nowhere: no such folder"):
        run_study(read_study(file), tmp_path / "out")


LATE = WIDE.replace("joins = 2e8", "joins = 3e8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [2, 1]", "seeds = [2]", "seeds"),
        ("budgets = [1e8, 2e8]", "budgets = [2e8, 1e8]", "ascending"),
        ("lrs = [2e-3, 1e-2, 5e-2]", "lrs = [2e-3, 2e-3]", "lrs must be positive and ascending"),
        ("validation_bytes = 400", "validation_bytes = 0", "validation_bytes must be at least 1"),
        ("strange = 200", "strange = 0", "heldout_bytes.strange must be at least 1, got 0"),
        ("strange = 200", "strange = -1", "heldout_bytes.strange must be at least 1, got -1"),
        ("[heldout.known]", "[heldout.none]\n[heldout.known]", "heldout.none: names no text"),
        ("rate_tries = [3, 1]", "rate_tries = [3, 4]", "rate_tries"),
        ("rate_tries = [3, 1]", "rate_tries = [3]", "rate_tries: one entry for each budget"),
        ("byte_model.dim=16", "byte_model.dims=16", "did you mean 'dim'"),
        ("byte_model.heads=2", "byte_model.heads=3", "multiple of"),
        ('name = "flat"', 'name = "BLT: entropy"', "two have the name"),
        ("[heldout.known]", "[held.known]", "unknown key 'held'"),
        ('recipe = { kind = "byte" }', "", "recipe: Field required$"),
        ("heldout_bytes", "heldout_byte", "did you mean 'heldout_bytes'"),
        ("strange = 200", "strang = 200", "no such kind; did you mean 'strange'"),
        ('sizes = "bytes"', 'sizes = "byte"', "no ladder 'byte'"),
        ('patcher = "tiny"', 'patcher = "small"', "no patcher 'small'"),
        ('kind = "blt"', 'kind = "blt"\nentropy_model = "x"', "patcher and an entropy_model"),
        ("share = 0.1", "share = 0.9", "share must be above 0"),
        ("[base.data]", f"{ASKED}beside = ['flatt']\n[base.data]", "beside: no 'flatt'; did you"),
        ("[[patchers]]", f"{LATE}[[patchers]]", "wide: joins 3e.* is none of the budgets"),
        ("[[patchers]]", f"{WIDE}leaves = 4e8\n[[patchers]]", "wide: leaves 4e.* is none of"),
        ("[base.data]", f"{ASKED}budgets = [3e8]\n[base.data]", "budgets: 3e8 is none"),
        (
            'kind = "byte"\ntrain',
            'kind = "token"\ntrain',
            "byte_model: only for kind 'byte'",
        ),
    ],
)
def test_mistakes_name_what_is_wrong(file: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_study(changed(file, old, new))


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("[base.data]", "changes = [[], ['data.max_bytes=6000']]\n[base.data]", "tiny at 2e8"),
        ('kind = "byte" }', 'kind = "byte", data = { heldout = 0.1 } }', "flat at 1e8"),
        ('"byte_model.dim=32"', "\"data.sources=['other.txt']\"", "flat at 1e8"),
        ('kind = "byte"\ntrain', 'kind = "byte"\ndata = { learn = "all" }\ntrain', "tiny at 1e8"),
        ('kind = "blt"', 'kind = "blt"\ndata = { weights = [2.0] }', "BLT, entropy at 1e8"),
    ],
)
def test_all_runs_of_a_study_read_the_same_text(file: Path, old: str, new: str, where: str) -> None:
    message = rf"{where} FLOPs: has another data\.\w+ than base.data; all runs"
    with pytest.raises(UserError, match=message):
        read_study(changed(file, old, new))


def test_runs_may_cut_the_same_text_into_other_segments_and_batches(
    file: Path, tmp_path: Path
) -> None:
    changes = "changes = [['data.batch_bytes=128'], ['data.context_bytes=32']]\n"
    study = read_study(changed(file, "[base.data]", f"{changes}[base.data]"))
    training = Training(study, StudyFolder(tmp_path / "out"), Clock(None), None)
    family = study.families[0]
    recipes = [study.point(family, budget, 0, 1e-2, 0).recipe for budget in study.budgets]
    for recipe in (*recipes, *recipes[::-1]):  # whichever comes first
        (text,) = training.sources(recipe)
        assert isinstance(text.train, MemorySegments)
        assert text.train.context_bytes == recipe.data.context_bytes
        assert training.sources(recipe)[0] is text  # opened once


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "task = 'bpb'\npaths = ['x']\nlimit = 3",
            "bpb: limit: means nothing for bpb, which takes",
        ),
        ("task = 'bpb'\npaths = ['x']\ngenerate = true", "bpb: generate: means nothing for bpb"),
        ("task = 'bpb'\npaths = ['x']\ntypos = 'x'", "bpb: typos: means nothing for bpb"),
        ("task = 'utf8'\nname = 'u'\nlimit = 0", "u: limit must be at least 1, got 0"),
        ("task = 'noise'\npaths = ['x']\nmax_bytes = 0", "max_bytes must be at least 1, got 0"),
        ("task = 'noise'", "noise: name its texts or data"),
        (
            "task = 'cute'\npaths = ['x', 'y']",
            "cute: name the folder of CUTE's .tsv files, and not",
        ),
    ],
)
def test_models_are_asked_what_blt_eval_can_be_asked(file: Path, asked: str, message: str) -> None:
    for section in ("evaluations", "characters.evaluations"):
        before = "[[characters]]\n" * section.startswith("characters")
        changed(file, "[[patchers]]", f"{before}[[{section}]]\n{asked}\n[[patchers]]")
        with pytest.raises(UserError, match=message):
            read_study(file)
        changed(file, f"{before}[[{section}]]\n{asked}\n", "")


def test_an_evaluation_whose_file_is_not_there_stops_the_study_at_once(
    file: Path, tmp_path: Path
) -> None:
    for asked in ("paths = ['none.txt']", f"paths = ['{file}']\ntypos = ''"):
        asked = f"[[evaluations]]\ntask = 'noise'\n{asked}\n"
        study = read_study(changed(file, "[[patchers]]", f"{asked}[[patchers]]"))
        with pytest.raises(UserError, match=r"evaluations: noise: .*no such file"):
            check_needs(study)
        changed(file, asked, "")


def test_nothing_can_be_drawn_before_a_run_has_ended(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["study", str(file), "--out", str(tmp_path / "none"), "--figures"]) == 2
    assert "no run has ended yet" in capsys.readouterr().err


def test_what_is_drawn_beside_a_running_study_is_drawn_alone(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[bool] = []

    def written(_: object, folder: Path) -> list[Path]:
        if (folder / "locks").is_dir():
            with StudyFolder(folder).claim("report") as free:
                alone.append(not free)
        return []

    monkeypatch.setattr("blt.cli.study._written", written)
    command = ["study", str(file), "--figures", "--out"]
    StudyFolder(tmp_path / "running").make()
    for name in ("running", "kept"):  # of the other only lines are there, and may be published
        (tmp_path / name).mkdir(exist_ok=True)
        assert cli.main([*command, str(tmp_path / name)]) == 0
    assert alone == [True]
    assert not [*(tmp_path / "kept").iterdir()]


def test_a_source_that_holds_nothing_out_is_refused_before_a_run(
    done: Path, tmp_path: Path
) -> None:
    """Nothing has no bits: as 0 of them it would flatter every mean alike."""
    copy, out = copied(done, tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("one short text that says little")
    prepared = tmp_path / "prepared"
    assert cli.main(["prepare", str(short), "--out", str(prepared)]) == 0
    text = copy.read_text()
    source = next(line for line in text.splitlines() if line.startswith("sources = "))
    copy.write_text(
        text.replace(source, f"{source[:-1]}, {str(prepared)!r}]\nweights = [1.0, 1.0]")
    )
    study = read_study(copy)
    training = Training(study, StudyFolder(out), Clock(None), None)
    with pytest.raises(UserError, match="prepared holds nothing out"):
        training.sources(study.point(study.families[0], 1e8, 0, 2e-3, 0).recipe)
