"""lm-evaluation-harness sees what ``blt eval`` sees."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import blt
from blt import cli
from blt.errors import UserError
from blt.evals.choices import accuracy
from blt.evals.datasets import hellaswag
from shapes import random_blt
from texts import MULTILINGUAL

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: pip install '.[eval]'")

TASK = """
task: swag
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{ctx}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "{{{{endings}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


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


def test_scores_are_those_of_blt_eval(model: Path, tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    import blt.evals.harness

    data = tmp_path / "swag.jsonl"
    lines = [
        {"ctx": f"Scene {n}:", "endings": ["It rains.", "He goes.", "é!", "No"], "label": n % 4}
        for n in range(12)
    ]
    data.write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "swag.yaml").write_text(TASK.format(data=data))
    found = lm_eval.simple_evaluate(
        "blt",
        model_args={"pretrained": str(model)},
        tasks=["swag"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )["results"]["swag"]
    own = accuracy(blt.load(model), hellaswag(data))
    assert found["acc,none"] == pytest.approx(own.likeliest)
    assert found["acc_norm,none"] == pytest.approx(own.per_character)


def test_what_cannot_be_is_said(model: Path) -> None:
    from blt.evals.harness import Harness

    with pytest.raises(UserError, match="dtype must be"):
        Harness(str(model), dtype="int8")
    with pytest.raises(UserError, match="no such folder"):
        Harness(str(model / "none"))


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
