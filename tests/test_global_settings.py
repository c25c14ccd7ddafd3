"""What a program sets for all of PyTorch changes no result."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt.generate import Engine
from shapes import random_blt
from texts import MULTILINGUAL

TEXT = MULTILINGUAL[:200]


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "deterministic": deterministic,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "one thread": lambda: threads(1),
    "three threads": lambda: threads(3),
}


def results(folder: Path) -> dict[str, Any]:
    lm = blt.load(folder)
    assert isinstance(lm, blt.BLT)
    patches = lm.patch(TEXT)
    state = lm.read(TEXT[:90])
    found: dict[str, Any] = {
        "logits": lm.logits(blt.encode(TEXT)),
        "starts": patches.starts,
        "entropies": patches.entropies,
        "bits": lm.bits_per_byte(TEXT, context=70),
        "scores": lm.log_likelihoods([(b"a ", b"b"), (b"a ", b"cd")]),
        "state": state.logits,
        "on": lm.generate(b"and", state=state, max_bytes=12, draft_bytes=3).data,
    }
    for native in (None, False):
        engine = Engine(lm, max_batch=2, native=native)
        handles = [engine.submit(text, max_bytes=12) for text in (TEXT[:50], b"a" * 40)]
        engine.run()
        found[f"texts {native}"] = [handle.result().data for handle in handles]
    return found


@pytest.mark.parametrize("setting", SETTINGS)
def test_nothing_that_is_set_for_all_of_pytorch_changes_a_result(
    setting: str, tmp_path: Path
) -> None:
    random_blt(newline_reset=True).save(tmp_path)
    plain = results(tmp_path)
    with SETTINGS[setting]():
        found = results(tmp_path)
    if setting == "autocast":  # asks for narrow products: scores are rounded, texts are not
        for name in ("logits", "bits", "scores", "starts", "entropies"):
            plain.pop(name)
    for name, expected in plain.items():
        if isinstance(expected, torch.Tensor):
            assert found[name].dtype == expected.dtype, name
            torch.testing.assert_close(found[name], expected, atol=1e-4, rtol=1e-4, msg=name)
        elif name in ("bits", "scores"):
            assert found[name] == pytest.approx(expected, rel=1e-5), name
        else:
            assert found[name] == expected, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_model_is_made_and_trained_as_ever(dtype: torch.dtype) -> None:
    def trained() -> dict[str, torch.Tensor]:
        lm = random_blt()
        torch.nn.functional.cross_entropy(
            lm.packed_logits([blt.encode(TEXT)])[:-1], blt.encode(TEXT)[1:]
        ).backward()
        return {n: p if p.grad is None else p.grad for n, p in lm.named_parameters()}

    plain = trained()
    with default_dtype(dtype):
        found = trained()
    for name, expected in plain.items():
        torch.testing.assert_close(found[name], expected)


def test_steps_in_cpp_refuse_numbers_of_another_kind() -> None:
    from blt.generate.cpp.products import address

    for wrong in (
        torch.zeros(4, dtype=torch.float64),
        torch.zeros(4, 4, dtype=torch.float32)[:, :2],
    ):
        with pytest.raises(TypeError, match=r"contiguous torch\.float32"):
            address(wrong, torch.float32)


def test_every_tensor_that_is_made_in_the_core_has_its_dtype_stated() -> None:
    """A constructor without one takes what the program has set for all of PyTorch."""
    folder = Path(blt.__file__).parent
    core = [*folder.glob("*.py")]
    for name in ("model", "generate", "native"):
        core += (folder / name).glob("*.py")
    makers = {"zeros", "ones", "empty", "full", "tensor", "arange", "linspace", "rand", "randn"}
    bare = [
        f"{path.relative_to(folder)}:{node.lineno}"
        for path in core
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) in {("torch", maker) for maker in makers}
        and not any(keyword.arg == "dtype" for keyword in node.keywords)
    ]
    assert bare == []
