"""Lines of patchers are added to those that are there, and no run takes any away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import fairness
from tools.parallel import Lengths

STUDY = '[base.data]\nsources = ["a.txt"]\n'
LANGUAGES = {"eng": b"the cat\non the mat", "rus": "кот на\nковре".encode()}
STRIDES = {"short": 2, "long": 4}  # of the patchers that are compared here


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[object]]:
    """Runs the tool, and gives the names of the patchers that it made."""
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "languages").mkdir()
    for name, text in LANGUAGES.items():
        (tmp_path / "languages" / f"{name}.txt").write_bytes(text)
    monkeypatch.setattr(fairness, "weighted_sources", lambda *_, **__: None)
    monkeypatch.setattr(fairness, "find_entropy_model", lambda _: "a model")
    monkeypatch.setattr(fairness, "training_sample", lambda *_: [b"twelve bytes"])

    def measured(out: Path, *more: str, fails: str = "") -> list[object]:
        made: list[object] = []

        def patcher(name: str) -> Lengths:
            def lengths(piece: bytes) -> list[int]:
                if name == fails and not piece.isascii():
                    raise KeyboardInterrupt  # a kill, in the second language
                return [len(piece[at : at + stride]) for at in range(0, len(piece), stride)]

            made.append(name)
            stride = STRIDES[name]
            return lengths

        patchers = {name: lambda name=name: patcher(name) for name in STRIDES}
        monkeypatch.setattr(fairness, "patchers", lambda *_: patchers)
        given = [tmp_path / "study.toml", "entropy", tmp_path / "languages", out]
        fairness.main([*map(str, given), *more])
        return made

    return measured


def test_a_run_of_one_patcher_keeps_the_lines_of_all_others(
    tmp_path: Path, run: Callable[..., list[object]]
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "new" / "out.jsonl"
    assert run(whole) == ["short", "long"]
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [(line["patcher"], line.get("language")) for line in lines] == [
        (name, language) for name in STRIDES for language in ("eng", "rus", None)
    ]
    assert run(out, "short") == ["short"]
    assert run(out, "long") == ["long"]
    assert out.read_text() == whole.read_text()
    assert run(out, "long") == run(out) == []
    assert out.read_text() == whole.read_text()


def test_a_run_that_was_killed_goes_on_with_the_line_where_it_was(
    tmp_path: Path, run: Callable[..., list[object]]
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run(whole)
    for name, count in (("short", 1), ("long", 4)):
        with pytest.raises(KeyboardInterrupt):
            run(out, fails=name)
        assert out.read_text() == "".join(whole.read_text().splitlines(keepends=True)[:count])
    assert run(out) == ["long"]
    assert out.read_text() == whole.read_text()


@pytest.mark.parametrize("count", [0, 3, 6])
def test_another_number_of_arguments_ends_with_the_usage(
    count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        fairness.main(["word"] * count)
    assert stop.value.code == 2
    assert "usage: python -m tools.fairness" in capsys.readouterr().err


def test_a_recipe_or_a_patcher_that_is_not_there_is_named(
    tmp_path: Path, run: Callable[..., list[object]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        fairness.main([str(tmp_path / "none.toml"), "entropy", str(tmp_path), "out.jsonl"])
    assert stop.value.code == 2
    assert "none.toml: no such file; give the recipe" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "out.jsonl", "nonsense")
    assert stop.value.code == 2
    assert "'nonsense' is in none of: short, long" in capsys.readouterr().err
