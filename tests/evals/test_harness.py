"""lm-evaluation-harness sees what ``blt eval`` sees."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import blt
from blt import cli
from blt.errors import UserError
from blt.evals.choices import Question, credits_of, option_values
from pages import ROOT
from shapes import random_blt
from texts import MULTILINGUAL

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: pip install '.[eval]'")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    random_blt().save(folder)
    return folder


@pytest.fixture(scope="module")
def harness(model: Path) -> Any:
    from blt.evals.harness import Harness

    return Harness(str(model), context_bytes=100)


def requests(*args: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=one) for one in args]


def test_log_likelihoods_are_those_of_the_model(harness: Any, model: Path) -> None:
    asked = [("", "été"), ("A context", " and"), ("A context", " or"), ("A", "")]
    found = harness.loglikelihood(requests(*asked))
    pairs = [(a.encode(), b.encode()) for a, b in asked]
    assert [log_p for log_p, _ in found] == blt.load(model).log_likelihoods(pairs)
    likeliest = blt.load(model).generate("A context", max_bytes=1).text
    assert harness.loglikelihood(requests(("A context", likeliest)))[0][1]


def test_an_adapter_is_added_under_the_harness_own_name(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs peft: pip install '.[lora]'")
    from blt.checkpoint import adapters
    from blt.evals.harness import Harness
    from blt.train import lora
    from blt.train.sections import LoraConfig

    lm = blt.load(model)
    lora.begin(lm, LoraConfig(rank=2, alpha=4.0), str(model), seed=0)
    with torch.no_grad():
        for name, parameter in adapters.tensors_of(lm).items():
            if name.endswith(adapters.B):
                parameter.normal_(std=0.1)
    lm.eval().save(tmp_path / "adapter")
    asked = requests(("A context", " and"))
    (plain,), (found,) = (
        Harness(str(model), peft=folder).loglikelihood(asked)
        for folder in (None, str(tmp_path / "adapter"))
    )
    assert found[0] == pytest.approx(lm.log_likelihoods([(b"A context", b" and")])[0], rel=1e-4)
    assert abs(found[0] - plain[0]) > 1e-2


def test_rolling_is_in_bits_per_byte_what_we_say(harness: Any, model: Path) -> None:
    texts = [MULTILINGUAL.decode(), "", "x"]
    for text, nats in zip(texts, harness.loglikelihood_rolling(requests(*zip(texts))), strict=True):
        size = len(text.encode())
        bits = blt.load(model).bits_per_byte(text, context=100) * size
        assert nats == pytest.approx(-bits * math.log(2), rel=1e-4)


def test_text_is_what_the_model_writes_up_to_its_stops(harness: Any, model: Path) -> None:
    lm = blt.load(model)
    options = {"until": [], "max_gen_toks": 5, "do_sample": False}
    (text,) = harness.generate_until(requests(("A prompt", options)))
    written = lm.generate("A prompt", max_bytes=20)
    assert text == written.text
    stop = written.data[3:5].decode("utf-8", "ignore") or "x"
    found = harness.generate_until(
        requests(("A prompt", {"until": [stop]}), ("Another", {"max_gen_toks": 2}))
    )
    assert stop not in found[0]
    assert len(found) == 2


@pytest.fixture
def swag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """HellaSwag's file, of a few questions."""
    lines = [
        {"ctx": f"Scene {n}:", "endings": ["It rains.", "He goes.", "é!", "No"], "label": n % 4}
        for n in range(12)
    ]
    (tmp_path / "bench-hellaswag").mkdir()
    data = tmp_path / "bench-hellaswag" / "hellaswag_val.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setenv("BLT_BENCH_DATA", str(tmp_path))
    return lines


def evaluate(model: Path, **metadata: str) -> dict[str, Any]:
    """HellaSwag with the harness, and the requests that it made."""
    from lm_eval.tasks import TaskManager

    from blt.evals.harness import Harness

    found = lm_eval.simple_evaluate(
        Harness(str(model)),
        tasks=["local_hellaswag"],
        task_manager=TaskManager(
            include_path=str(ROOT / "benchmarks" / "harness_tasks"),
            include_defaults=False,
            metadata=metadata,
        ),
        bootstrap_iters=0,
    )
    return {
        **found["results"]["local_hellaswag"],
        "asked": [row["arguments"] for row in found["samples"]["local_hellaswag"]],
    }


def test_scores_are_those_of_the_model(model: Path, swag: list[dict[str, Any]]) -> None:
    asked = [
        Question.plain(ctx.encode(), [f" {end}".encode() for end in endings], label)
        for ctx, endings, label in (row.values() for row in swag)
    ]
    found, lm = evaluate(model), blt.load(model)
    values = option_values(lm, asked)
    assert found["acc,none"] == pytest.approx(fmean(credits_of(asked, values)))
    assert found["acc_norm,none"] == pytest.approx(fmean(credits_of(asked, values, per_byte=True)))


@pytest.mark.parametrize("where", ["prompt", "completion", "both"])
def test_noise_goes_where_it_is_sent(where: str, model: Path, swag: list[dict[str, Any]]) -> None:
    asked = evaluate(model, noise="AntSpeak", where=where)["asked"]
    for row, pairs in zip(swag, asked, strict=True):
        spaced = [" ".join(text.upper()) for text in (row["ctx"], *row["endings"])]
        ctx = row["ctx"] if where == "completion" else spaced[0]
        endings = row["endings"] if where == "prompt" else spaced[1:]
        assert pairs == [(ctx, f" {ending}") for ending in endings]


def test_a_noise_that_is_none_is_named(model: Path, swag: list[dict[str, Any]]) -> None:
    with pytest.raises(SystemExit, match="noise must be one of AntSpeak"):
        evaluate(model, noise="Whisper")


def test_what_cannot_be_is_said(model: Path) -> None:
    from blt.evals.harness import Harness

    with pytest.raises(UserError, match="dtype must be"):
        Harness(str(model), dtype="int8")
    with pytest.raises(UserError, match="no such folder"):
        Harness(str(model / "none"))


def test_it_works_where_it_is_told_and_on_a_cpu_in_float32(model: Path) -> None:
    from blt.evals.harness import Harness

    with pytest.raises(UserError, match="--device: 'cuda:9' is not there"):
        Harness(str(model), device="cuda:9")
    assert Harness(str(model), device="cpu").dtype == torch.float32
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    for unsaid in (None, "cuda:0", "auto"):
        assert Harness(str(model), device=unsaid).lm.device.type == expected


def test_the_harness_keeps_its_own_models() -> None:
    """In a process of its own: here, other tests have imported them."""
    code = (
        "import blt.evals.harness\n"
        "from lm_eval.api.registry import get_model\n"
        "for name in ('blt', 'dummy', 'local-completions'): get_model(name)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_the_command_is_the_harness_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lm-eval", "run", "--help"]) == 0
    assert "--model_args" in capsys.readouterr().out
