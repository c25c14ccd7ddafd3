"""A study refuses what does not fit: mistakes in its file, and folders of another study."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blt import cli
from blt.errors import UserError
from blt.study import Search, read_study, run_study
from blt.study.folder import EVALS, StudyFolder
from small_study import ASKED, WIDE, changed, copied


def test_a_changed_study_does_not_reuse_runs(done: Path, tmp_path: Path) -> None:
    out, file = done.parent / "out", Path(shutil.copy(done, tmp_path))
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [2, 1]", "seeds = [2]", "seeds"),
        ("budgets = [1e8, 2e8]", "budgets = [2e8, 1e8]", "ascending"),
        ("lrs = [2e-3, 1e-2, 5e-2]", "lrs = [2e-3, 2e-3]", "lrs must be positive and ascending"),
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
        ("[[patchers]]", f"{WIDE}[[patchers]]", "wide: joins 3e.* is none of the budgets"),
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


def test_nothing_can_be_drawn_before_a_run_has_ended(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["study", str(file), "--out", str(tmp_path / "none"), "--figures"]) == 2
    assert "no run has ended yet" in capsys.readouterr().err
