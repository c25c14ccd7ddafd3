"""What runs on a GPU, on one that is only pretended; ``test_device.py`` runs this in a process of
its own, since PyTorch believes in the device from then on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import blt
from blt.cli import main
from blt.data.prepare import prepare
from blt.data.worker import Options
from blt.patching import Patcher
from blt.patching.calibration import learn_lookup_table
from blt.serve.analysis import Analysis
from blt.serve.schemas import RuleIn
from elsewhere import GPU, There, pretended_gpu
from shapes import TINY, random_blt
from texts import MULTILINGUAL

TEXT = MULTILINGUAL[:120]
RULES = ("entropy", "entropy-monotonic", "space", "lookup")


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    with pretended_gpu() as device:
        yield device


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(gpu: torch.device) -> None:
    there = torch.arange(4, device=gpu)
    here = torch.arange(4)
    assert there.device.type == GPU
    assert (there + 1).cpu().tolist() == [1, 2, 3, 4]
    for wrong in (
        lambda: there + here,
        lambda: torch.cat((there, here)),
        lambda: here[there],
        lambda: np.asarray(there),
        there.numpy,
    ):
        with pytest.raises((RuntimeError, TypeError)):
            wrong()


@contextlib.contextmanager
def float32() -> Iterator[None]:
    """As on a GPU without bfloat16: what comes out is what comes out here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("blt.machine.precision.bfloat16_is_faster", lambda _: False)
        yield


def results(lm: Any) -> dict[str, Any]:
    state = lm.read(TEXT[:60])
    found: dict[str, Any] = {
        "logits": lm.logits([blt.encode(TEXT), blt.encode("")])[0].cpu(),
        "bits": lm.bits_per_byte(TEXT, context=50),
        "scores": lm.log_likelihoods([(b"a ", b"b"), (b"a ", b"cd")]),
        "read": lm.generate(b"and", state=state, max_bytes=8).data,
        "texts": [one.data for one in lm.generate([TEXT[:50], b"a"], max_bytes=8, temperature=1.0)],
    }
    if isinstance(lm, blt.BLT):
        found["patches"] = lm.patch(TEXT).starts.tolist()
        found["size"] = lm.patcher.mean_patch_size([TEXT])
        if lm.config.patching.rule != "space":
            found["drafted"] = lm.generate(TEXT[:40], max_bytes=8, draft_bytes=3).data
    return found


@pytest.mark.parametrize("rule", RULES)
def test_a_blt_reads_scores_cuts_and_writes_there_what_it_does_here(rule: str) -> None:
    check(random_blt(rule))


def test_so_does_one_that_forgets_at_newlines() -> None:
    check(random_blt(newline_reset=True))


def test_so_does_a_byte_model() -> None:
    torch.manual_seed(0)
    check(blt.ByteLM(blt.ByteTransformerConfig(dim=32, heads=2, layers=2, ff_dim=48)).eval())


def check(lm: Any) -> None:
    expected = results(lm)
    with pretended_gpu() as gpu, float32():
        found = results(lm.to(gpu))
        assert all(isinstance(p.data, There) for p in lm.parameters())
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)
        elif name in ("bits", "scores", "size"):
            assert found[name] == pytest.approx(value, rel=1e-5), name
        else:
            assert found[name] == value, name


def test_a_rule_is_calibrated_and_a_table_learned_there(gpu: torch.device) -> None:
    patcher = random_blt().patcher
    expected = patcher.calibrated([TEXT * 4], 3.0)
    assert expected.entropy_model is not None
    how = (expected.entropy_model, [TEXT * 4], 3.0, blt.PatchingConfig(rule="lookup"))
    _, table = learn_lookup_table(*how)
    patcher.entropy_model.to(gpu)  # type: ignore[union-attr]
    with float32():
        assert patcher.calibrated([TEXT * 4], 3.0).config == expected.config
        assert torch.equal(learn_lookup_table(*how)[1], table)


def test_a_patcher_is_where_its_table_is(gpu: torch.device) -> None:
    table = torch.rand(260) < 0.3
    patcher = Patcher(blt.PatchingConfig(rule="lookup", lookup_order=1), table=table)
    expected = patcher.cut(TEXT).lengths
    there = Patcher(patcher.config, table=table.to(gpu))
    assert there.device.type == GPU
    assert there.cut(TEXT).lengths == expected


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("device") / "model"
    random_blt().save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("device") / "text.txt"
    path.write_bytes(TEXT * 4)
    return str(path)


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(args) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def commands(model: str, text: str) -> dict[str, list[str]]:
    return {
        "generate": ["generate", "and", "the", "--model", model, "--max-bytes", "8", "--json"],
        "eval bpb": ["eval", "bpb", text, "--model", model, "--json"],
        "patch": ["patch", "--file", text, "--model", model, "--json"],
    }


@pytest.mark.parametrize("verb", commands("", ""))
def test_a_verb_prints_there_what_it_prints_here(
    verb: str, model: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = commands(model, text)[verb]
    expected = numbers(printed(capsys, *args, "--device", "cpu"))
    with pretended_gpu(), float32():
        assert numbers(printed(capsys, *args, "--device", GPU)) == expected


def numbers(lines: str) -> Any:
    """Of JSON lines, floating ones rounded."""
    return [
        json.loads(line, parse_float=lambda x: f"{float(x):.3g}") for line in lines.splitlines()
    ]


def test_entropies_are_prepared_there(model: str, text: str, tmp_path: Path) -> None:
    options = Options((text,), entropy_model=model)
    expected = prepare(tmp_path / "here", options)
    with pretended_gpu(), float32():
        found = prepare(tmp_path / "there", options, device=GPU)
    assert found["entropy_model"] == expected["entropy_model"]
    assert [s["bytes"] for s in found["shards"]] == [s["bytes"] for s in expected["shards"]]


def test_a_table_is_made_there(model: str, text: str, tmp_path: Path) -> None:
    tables = []
    with pretended_gpu():
        for place in ("cpu", GPU):
            out = tmp_path / place
            make = ["--make-table", str(out), "--order", "1", "--threshold", "1", "--device", place]
            assert main(["patch", "--file", text, "--model", model, *make]) == 0
            tables.append(out.read_bytes())
    assert tables[0] == tables[1]


def test_the_server_reads_there(gpu: torch.device) -> None:
    for lm in (random_blt(), random_blt("space"), blt.ByteLM(TINY).eval()):
        here = Analysis.of(lm)
        rules = [RuleIn(rule="model"), RuleIn(rule="space"), RuleIn(rule="entropy")]
        expected = here.patches(TEXT, rules), here.score(TEXT), here.piece(TEXT, 2)
        with float32():
            there = Analysis.of(lm.to(gpu))
            found = there.patches(TEXT, rules), there.score(TEXT), there.piece(TEXT, 2)
        assert found[0].patches == expected[0].patches
        assert found[1].bits == pytest.approx(expected[1].bits, rel=1e-5)
        assert found[2].logprobs == pytest.approx(expected[2].logprobs, rel=1e-5)


def test_a_program_names_the_device_when_it_loads(model: str, gpu: torch.device) -> None:
    assert blt.load(model, device=GPU).device.type == GPU
    assert blt.load(device=gpu).device.type == GPU
