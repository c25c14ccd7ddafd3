"""C++ is compiled by whatever compiler the machine names, wherever things lie."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from blt.machine import cpp

FAKE = """#!/bin/sh
printf '%s\\n' "$@" > "$0.log"
for last; do :; done
: > "$last"
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that writes what it was told into a log; every path here has a space in it."""
    place = tmp_path / "my tools"
    place.mkdir()
    (place / "c++").write_text(FAKE)
    (place / "c++").chmod(0o755)
    (place / "a.cpp").write_text("int main() {}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
    monkeypatch.setattr(cpp, "HERE", tmp_path / "my environment")
    return place / "c++"


def told(compiler: Path) -> list[str]:
    return compiler.with_name("c++.log").read_text().splitlines()


def test_paths_with_spaces_reach_the_compiler_whole(
    compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", f"'{compiler}'")
    source = compiler.with_name("a.cpp")
    library = cpp._library(source)
    assert library.is_file()
    *flags, include, given, _, target = told(compiler)
    assert (flags, include, given) == (cpp.FLAGS, f"-I{cpp.HERE}", str(source))
    assert Path(target).is_relative_to(library.parent)  # beside its place, and then moved


def test_a_compiler_may_be_several_words(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"'{compiler}' g++ -DMINE='a b'")
    cpp._library(compiler.with_name("a.cpp"))
    assert told(compiler)[:2] == ["g++", "-DMINE=a b"]
    monkeypatch.setenv("CXX", "ccache g++")
    assert cpp._compiler() == ["ccache", "g++"]


def test_without_a_word_the_machines_own_compiler_is_taken(
    compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(compiler.parent))
    assert cpp._compiler() == [str(compiler)]
    monkeypatch.setenv("PATH", str(compiler.parent / "none"))
    with pytest.raises(OSError, match="no C\\+\\+ compiler"):
        cpp._compiler()


def test_another_packages_openmp_is_neither_linked_nor_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not any("openmp" in flag or flag.startswith("-l") for flag in cpp.FLAGS)
    asked: list[Any] = []

    def loaded(path: Any) -> Any:
        asked.append(path)
        return SimpleNamespace(**dict.fromkeys(cpp.OPENMP[: len(asked)]))

    monkeypatch.setattr(ctypes, "CDLL", loaded)
    assert [cpp._openmp() is not None for _ in cpp.OPENMP] == [False, False, True]
    assert {Path(path).parent for path in asked} == {Path(torch.__file__).parent / "lib"}
