"""Triton kernels are right, and fit an H100: both shown without a GPU.

Each in a process of its own, since TRITON_INTERPRET counts when triton is first imported.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)


def run(file: str, **variables: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(Path(__file__).with_name(file))],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    tuple(map(int, version("triton").split(".")[:2])) < (3, 9)
    and tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4),
    reason="this triton's interpreter does not know this NumPy",
)
def test_kernels_equal_plain_formulas_in_the_interpreter() -> None:
    run("interpreted_kernels.py", TRITON_INTERPRET="1")


def test_kernels_compile_for_an_h100_without_spilling_registers(tmp_path: Path) -> None:
    run("compiled_kernels.py", TRITON_CACHE_DIR=str(tmp_path))
