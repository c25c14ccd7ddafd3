"""Models are scored side by side: on the same held-out text, once, as the library measures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import blt
from blt.checkpoint.pretrained import save_patching
from blt.errors import UserError
from blt.files.checksums import digest
from blt.patching import PatchingConfig
from tools import fairness, heldout, score
from tools.heldout import Text, texts
from tools.models import open_model, weights_digest
from tools.parallel import lengths_of

KINDS = ["PEPs", "logs", "JSON", "CSV", "FLORES"]
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(corpora: Path, tmp_path: Path) -> Run:
    """Scores models, and gives all lines."""
    out = tmp_path / "new/scores.jsonl"

    def scored(*models: object, kinds: list[str] = KINDS) -> list[dict[str, Any]]:
        how = ["--max-bytes", "3000", "--sentences", "30", "--kinds", *kinds]
        score.main([*map(str, models), "--data", str(corpora), "--out", str(out), *how])
        return [json.loads(line) for line in out.read_text().splitlines()]

    return scored


def test_all_models_are_scored_on_the_same_text_of_every_kind(
    run: Run, folders: dict[str, Path]
) -> None:
    lines = run(*(f"{name}={folder}" for name, folder in folders.items()))
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    assert kinds[:4] == KINDS[:4]
    assert len(kinds) == 4 + 9
    for kind in kinds:
        of = [line for line in lines if line["kind"] == kind]
        assert [line["model"] for line in of] == list(folders)
        assert [line["context"] for line in of] == [1024, 2048, 2048]
        for same in ("text", "bytes", "documents", "of_documents", "of_bytes", "sentences"):
            assert len({line[same] for line in of}) == 1
    for line in lines:
        assert line["bytes"] == min(3000, line["of_bytes"])
        assert line["low"] is None or line["low"] <= line["bits_per_byte"] <= line["high"]
        assert line["sentences"] == (30 if "FLORES" in line["kind"] else None)
        assert line["sha256"] == digest(folders[line["model"]] / "model.safetensors")


def test_a_kind_that_is_not_there_is_refused_with_those_that_are(
    run: Run, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(folders["lookup"], kinds=[KINDS[0], "Klingon"])
    assert "'Klingon' is in none of: Python" in capsys.readouterr().err


def test_bits_and_patches_are_those_of_the_library(
    run: Run, folders: dict[str, Path], corpora: Path
) -> None:
    (line,) = run(folders["lookup"], kinds=["CSV"])
    (text,) = texts(corpora, ["CSV"])
    lm, csv = blt.load(folders["lookup"]), text.documents[0]
    assert (line["documents"], line["of_documents"], line["low"]) == (1, 1, None)
    assert line["bits_per_byte"] == pytest.approx(lm.bits_per_byte(csv), abs=1e-4)
    assert isinstance(lm, blt.BLT)
    patches = len(lm.patch(csv).lengths) - 1
    assert line["bytes_per_patch"] == pytest.approx(len(csv) / patches, abs=1e-4)


@pytest.mark.parametrize("name", ["byte", "entropy", "lookup"])
def test_patches_of_parallel_sentences_are_those_that_fairness_counts(
    run: Run,
    folders: dict[str, Path],
    corpora: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = run(folders[name], kinds=["eng_Latn", "khm_Khmr"])
    languages = {
        text.kind.removeprefix("FLORES "): (text.sentences or [])[:30]
        for text in texts(corpora, ["eng_Latn", "khm_Khmr"])
    }
    model = open_model(str(folders[name]))
    monkeypatch.setattr(fairness, "CONTEXT", model.context)
    rows = fairness.measured(name, lengths_of(model.patcher), languages, [b"mix"])
    counted = {row.get("language"): row.get("patches_per_sentence") for row in rows}
    for line in lines:
        wanted = counted[line["kind"].removeprefix("FLORES ")]
        assert line["patches_per_sentence"] == pytest.approx(wanted, abs=1e-4)


def test_what_is_scored_is_not_scored_again_but_for_other_weights_or_another_rule(
    run: Run, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    real = score.score

    def noted(model: Any, text: Text, *rest: Any) -> dict[str, Any]:
        scored.append(model.label)
        return real(model, text, *rest)

    monkeypatch.setattr(score, "score", noted)
    model = blt.load(folders["byte"])
    for folder in ("same", "other-rule"):
        model.save(tmp_path / folder)
    save_patching(tmp_path / "same", PatchingConfig(threshold=5.0))
    save_patching(tmp_path / "other-rule", PatchingConfig(threshold=1.0))
    first = run(folders["byte"], kinds=["PEPs"])
    run(folders["byte"], tmp_path / "same", kinds=["PEPs"])
    assert scored == ["byte"]
    lines = run(tmp_path / "other-rule", folders["lookup"], kinds=["PEPs"])
    assert scored == ["byte", "other-rule", "lookup"]
    assert lines[: len(first)] == first
    run(folders["byte"], kinds=["PEPs", "CSV"])
    assert scored[3:] == ["byte"]


def test_no_recipe_trains_on_what_is_scored(corpora: Path) -> None:
    found = {text.kind: text.documents for text in texts(corpora, ["logs", "JSON", "CSV"])}
    assert found["CSV"] == [b"a,b\n1,2\n"]  # not packed, so no recipe names it
    for kind, source in (("logs", "train-logs/*.log.gz"), ("JSON", "train-structured/**/*.gz")):
        documents = blt.data.read((str(corpora / source),)).documents
        for share in (heldout.FEWEST, heldout.MOST):
            train = blt.data.split(documents, share).train
            assert found[kind]
            assert not any(held in text for held in found[kind] for text in train)
    assert all(document.startswith(b"[") for document in found["JSON"])


def test_shares_that_do_not_nest_are_refused(
    corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heldout, "MOST", 0.001)
    with pytest.raises(UserError, match="some of what is held out at"):
        list(texts(corpora, ["JSON"]))


def test_models_are_called_by_their_label_their_folder_or_their_run(
    folders: dict[str, Path],
) -> None:
    names = [f"mine={folders['byte']}", str(folders["byte"]), str(folders["lookup"])]
    assert [open_model(name).label for name in names] == ["mine", "byte", "lookup"]
    assert open_model("entropy_model").label == "entropy_model"


def test_a_run_is_its_model_with_its_weights_and_its_rule(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    inside = tmp_path / "run/checkpoint"
    shutil.copytree(folders["byte"], inside)
    of_run, of_model = (open_model(str(place)) for place in (inside.parent, inside))
    assert of_run.about == of_model.about
    assert (of_run.label, of_run.sha256) == ("run", digest(inside / "model.safetensors"))
    assert "5" in of_run.patcher.describe()  # not θ as it is where nobody has calibrated it


def test_weights_that_cannot_be_known_again_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pretrained: holds no safetensors .* blt, entropy_model"):
        open_model("pretrained")
    with pytest.raises(UserError, match="holds no safetensors"):
        weights_digest(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/nowhere", "--data", "{}", "--out", "{}/out"], "/nowhere"),
        (["--table", "{}/out"], "no such file"),
        (["blt", "--out", "{}/out"], "give models with --data and --out"),
        (["blt", "--data", "{}", "--out", "{}/out", "--max-bytes", "0"], "--max-bytes"),
    ],
)
def test_mistakes_end_with_a_message_and_nothing_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        score.main([word.format(tmp_path) for word in words])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
