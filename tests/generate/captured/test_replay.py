"""Steps that are captured once and replayed write the same: a CPU's imitation of CUDA graphs.

A graph repeats the operations of one call on the very same memory. So does the one here: whatever
a step takes from the host, or from a tensor that was replaced since, would be out of date.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import blt
from blt.generate import Engine, Generation
from blt.generate.captured.capture import Launcher
from blt.generate.captured.writer import CapturedWriter
from shapes import TINY, random_blt
from texts import MULTILINGUAL


class Recording(TorchDispatchMode):
    """The operations of a call."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, found))
        return found

    def replay(self) -> None:
        for func, args, kwargs, found in self.operations:
            again = func(*args, **kwargs)
            if any(returned.alias_info is not None for returned in func._schema.returns):
                continue  # it is a view of memory that is where it was, or has been written
            for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)


class Replaying(Launcher):
    """Records each step when it is first called, with its arguments, and then replays it."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.replayed = 0

    def __call__(self, step: Any, *arguments: Any) -> None:
        key = (step.__name__, *arguments)
        if key in self.graphs:
            self.graphs[key].replay()
            self.replayed += 1
            return
        with Recording() as recording:
            step(*arguments)
        self.graphs[key] = recording  # type: ignore[assignment]


TEXTS: list[tuple[bytes, dict[str, Any]]] = [
    (b"", {"max_bytes": 130}),
    (MULTILINGUAL[:10], {"max_bytes": 9, "temperature": 1.0}),
    (b"x", {"max_bytes": 5, "temperature": 1.0, "top_k": 9}),
    (b"\n\n", {"max_bytes": 70, "repetition_penalty": 1.3}),
    (b"drafted", {"max_bytes": 15, "temperature": 1.0}),
    (b"last", {"max_bytes": 60}),
]


def written(lm: Any, captured: bool, drafts: int) -> list[Generation]:
    """Texts that come and go, more than there are rows; of one of them drafts are made."""
    engine = Engine(lm, max_batch=4, captured=captured, native=False)
    launch = Replaying()
    if captured:
        assert isinstance(engine._writer, CapturedWriter)
        engine._writer.launch = launch
    handles = [
        engine.submit(prompt, seed=i, ignore_eos=True, draft_bytes=drafts * (i == 4), **options)
        for i, (prompt, options) in enumerate(TEXTS)
    ]
    engine.run()
    assert not captured or launch.replayed > 100
    return [handle.result() for handle in handles]


def assert_same(lm: Any, drafts: int) -> None:
    for one, other in zip(written(lm, True, drafts), written(lm, False, drafts), strict=True):
        assert (one.data, one.starts, one.accepted) == (other.data, other.starts, other.accepted)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize(
    "patching",
    [
        {"newline_reset": True, "max_patch_length": 9},
        {"rule": "static", "stride": 60},  # open patches outgrow their room
        {"rule": "byte"},  # and patches theirs
    ],
)
def test_replayed_steps_write_what_the_host_would(patching: dict[str, Any], drafts: int) -> None:
    assert_same(random_blt(**patching), drafts)


def test_a_byte_model_s_step_can_be_replayed_too() -> None:
    torch.manual_seed(0)
    assert_same(blt.ByteLM(TINY), 0)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3])
def test_steps_are_graphs_without_breaks_and_few_serve_all_sizes(n: int) -> None:
    """What ``torch.compile`` can trace whole asks the host for nothing."""
    lm = random_blt(newline_reset=True, max_patch_length=9)
    engine = Engine(lm, max_batch=4, captured=True, draft_bytes=n - 1)
    for seed in range(4):
        engine.submit(b"x", max_bytes=99, temperature=1.0, top_k=9, ignore_eos=True, seed=seed)
    engine.step()
    assert isinstance(engine._writer, CapturedWriter)
    steps: Any = engine._writer.steps
    sizes: dict[str, list[tuple[Any, ...]]] = {
        "cut": [(rows, n) for rows in (1, 2, 4)],
        "encode": [(rows, n) for rows in (1, 2, 4)],
        "close": [(rows, n, rows) for rows in (1, 2, 4)],
        "write": [(rows, n, engine._writer.needs) for rows in (1, 2, 4)],
    }
    if n > 1:
        sizes["guess"] = sizes["write"]
    for name, arguments in sizes.items():
        torch._dynamo.reset()
        counters = torch._dynamo.utils.counters
        counters.clear()
        step = torch.compile(getattr(steps, name), fullgraph=True, backend="eager")
        with torch.no_grad():
            for one in arguments:
                step(*one)
        assert counters["stats"]["unique_graphs"] <= 3
