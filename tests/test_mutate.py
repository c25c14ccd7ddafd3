"""The list of mutations fits the source tree, and its runner tells a caught one from a survivor."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "mutate.py"


@pytest.fixture(scope="module")
def mutate() -> Any:
    spec = importlib.util.spec_from_file_location("mutate", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = module
    spec.loader.exec_module(module)
    return module


def test_every_mutation_of_the_list_can_still_be_made(mutate: Any) -> None:
    mutations = mutate.read_list()
    mutate.check(mutations)
    assert len(mutations) >= 40
    files = {test for m in mutations for test in m.tests if test.endswith(".py")}
    assert [name for name in files if not (mutate.ROOT / name).is_file()] == []


@pytest.mark.parametrize("text", ["a = 1\n", "a = 2\na = 2\n"])
def test_a_text_that_is_not_there_exactly_once_is_an_error(
    mutate: Any, text: str, tmp_path: Path
) -> None:
    (tmp_path / "code.py").write_text(text)
    with pytest.raises(SystemExit, match=r"wrong: 'a = 2' is \d times in code.py, not once"):
        mutate.check([mutate.Mutation("wrong", "code.py", "a = 2", "a = 3", [])], tmp_path)


def test_a_mutation_is_caught_or_survives_and_is_taken_back(
    mutate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code.py"
    code.write_text("a = 1\nb = 1\n")

    def tested(tests: list[str], copy: Path, limit: float) -> str | None:
        return None if "a = 1" in (copy / "code.py").read_text() else "test_a"

    monkeypatch.setattr(mutate, "failing_test", tested)
    mutations = [mutate.Mutation(x, "code.py", f"{x} = 1", f"{x} = 2", []) for x in "ab"]
    results = list(mutate.try_all(mutations, tmp_path, 60))
    assert [result.caught_by for result in results] == ["test_a", None]
    assert code.read_text() == "a = 1\nb = 1\n"
    code.write_text("a = 3\nb = 1\n")
    with pytest.raises(SystemExit, match="test_a fails without any mutation"):
        list(mutate.try_all(mutations[1:], tmp_path, 60))
