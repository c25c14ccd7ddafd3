"""Steps in C++ give the same bits on any number of threads, in vectors of any width."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from blt import encode
from blt.generate import cpp
from blt.generate.cpp import products, steps
from blt.generate.incremental_blt import cached
from blt.generate.weights import Precision, _packed_linear, packed
from blt.machine import cpp as compiling
from shapes import random_blt
from texts import MULTILINGUAL

INFO = Path("/proc/cpuinfo")
HAS_AVX2 = INFO.exists() and {"avx2", "fma", "bmi2"} <= set(INFO.read_text().split())
# Statics of its own: those that the other form has under the same names may be of other types.
NARROW = ("-march=haswell", "-fno-gnu-unique")
needs_cpp = pytest.mark.skipif(cpp.library() is None, reason="no C++")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")


@pytest.fixture(scope="module", params=["native", "avx2"])
def library(request: pytest.FixtureRequest) -> ctypes.CDLL:
    """The steps for this processor, and for one with AVX2 and no more."""
    if request.param == "native":
        found = cpp.library()
    elif not HAS_AVX2:
        pytest.skip("needs a processor with AVX2")
    else:
        flags = [flag for flag in compiling.FLAGS if flag != "-march=native"]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(compiling, "FLAGS", [*flags, *NARROW])
            found = cpp.library.__wrapped__()
    assert found is not None
    return found


@pytest.fixture
def on_threads(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Numbers of threads, on which steps run from then on."""

    def each() -> Iterator[int]:
        for count in (1, 2, 3):
            for module in (products, steps):
                monkeypatch.setattr(module, "threads", lambda count=count: ctypes.c_int64(count))
            yield count

    monkeypatch.setattr(cpp, "library", lambda: library)
    return each()


@needs_cpp
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("outputs", [24, 32, 50, 168])
def test_a_product_is_the_same_on_any_number_of_threads(
    precision: Precision, outputs: int, on_threads: Iterator[int]
) -> None:
    torch.manual_seed(outputs)
    linear = products.NativeLinear(_packed_linear(torch.randn(outputs, 200), precision, True))
    x = torch.randn(5, 200)
    first, *others = [linear(x) for _ in on_threads]
    assert all(torch.equal(first, other) for other in others)


@needs_cpp
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_blt_says_is_the_same_on_any_number_of_threads(
    precision: Precision, on_threads: Iterator[int]
) -> None:
    lm = random_blt()
    ids = encode(MULTILINGUAL[:60]).tolist()

    def said() -> torch.Tensor:
        model = cached(packed(lm, precision, native=True), 1)
        model.read([ids[:20]])
        found = []
        for at in range(20, len(ids), 3):
            found.append(model.extend([ids[at : at + 3]])[0])
            model.commit([len(found[-1])])
        return torch.cat(found)

    first, *others = [said() for _ in on_threads]
    assert all(torch.equal(first, other) for other in others)
