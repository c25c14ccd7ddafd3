"""What the harness asks of a generation is done, or refused by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import blt
from blt.errors import UserError
from blt.evals.gen_kwargs import options, seeds
from blt.generate import Sampling
from shapes import random_blt

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: pip install '.[eval]'")


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from blt.evals.harness import Harness

    folder = tmp_path_factory.mktemp("model") / "model"
    random_blt().save(folder)
    return Harness(str(folder))


def asked(context: str, doc: int = 0, **more: Any) -> Any:
    arguments = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 4, **more}
    return SimpleNamespace(args=(context, arguments), task_name="t", doc_id=doc)


def test_repeats_and_documents_differ_and_a_seed_repeats_them(harness: Any) -> None:
    requests = [asked("A", doc) for doc in (0, 0, 0, 1, 1)]
    torch.manual_seed(7)
    first = harness.generate_until(requests)
    assert len(set(first)) == 5
    torch.manual_seed(7)
    assert harness.generate_until(requests) == first
    torch.manual_seed(7)
    again = harness.generate_until([requests[index] for index in (3, 0, 4, 1, 2)])
    assert again == [first[index] for index in (3, 0, 4, 1, 2)]
    torch.manual_seed(8)
    assert not set(harness.generate_until(requests)) & set(first)
    assert harness.generate_until([asked("A", seed=7)]) == harness.generate_until(
        [asked("A", seed=7)]
    )


def test_every_argument_is_used(harness: Any) -> None:
    given = {"top_k": 5, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.5}
    request = asked("A prompt", until=["x"], **given)
    torch.manual_seed(0)
    (found,) = harness.generate_until([request])
    (seed,) = seeds([request], 0)
    expected = harness.lm.generate(
        "A prompt", max_bytes=16, temperature=1.0, stop=["x"], seed=seed, **given
    )
    assert found == expected.text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_bytes": 1024, "temperature": 0.0}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),
        ({"temperature": "0.7"}, {"temperature": 0.7}),
        ({"until": None, "max_gen_toks": 0}, {"stop": (), "max_bytes": 0}),
        ({"until": "end"}, {"stop": ("end",)}),
        ({"until": ["a", ""]}, {"stop": ("a",)}),
        ({"max_new_tokens": 3}, {"max_bytes": 12}),
        ({"max_tokens": "3"}, {"max_bytes": 12}),
        ({"num_beams": 1, "use_cache": True, "top_k": 0}, {}),
        ({"max_gen_toks": 3.0, "max_new_tokens": 3, "top_k": 2.0}, {"max_bytes": 12, "top_k": 2}),
        ({"max_gen_toks": None, "max_new_tokens": 3}, {"max_bytes": 12}),
        ({"stop": ["a"]}, {"stop": ("a",)}),
    ],
)
def test_usual_arguments_are_understood(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = options(given)
    assert {name: found[name] for name in expected} == expected
    Sampling(**found)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"num_beams": 4}, "num_beams=4"),
        ({"nonsense": 1}, "nonsense"),
        ({"temprature": 1}, "temperature"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"until": [1]}, "until must hold strings"),
        ({"do_sample": True, "temperature": 0.0}, "temperature above 0"),
        ({"do_sample": "maybe"}, "do_sample must be"),
        ({"top_p": 2.0}, "top_p"),
        ({"max_gen_toks": -1}, "max_gen_toks must be at least 0"),
        ({"max_gen_toks": float("nan")}, "max_gen_toks must be a number"),
        ({"max_new_tokens": "inf"}, "max_new_tokens must be a number"),
        ({"max_tokens": 2.5}, "max_tokens must be a whole number"),
        ({"max_gen_toks": 10**400}, "max_gen_toks must be a number"),
        ({"max_gen_toks": True}, "max_gen_toks must be a number"),
        (
            {"max_gen_toks": 3, "max_new_tokens": 9},
            "max_gen_toks=3, max_new_tokens=9 mean the same",
        ),
        ({"until": ["a"], "stop": "b"}, "mean the same"),
        ({"until": 5}, "until must be a string or a list"),
        ({"until": {"a": 1}}, "until must be a string or a list"),
        ({"top_k": 2.5}, "top_k must be a whole number"),
        ({"temperature": True}, "temperature must be a number"),
        ({5: 1}, "'5' is not known"),
        ({"max_gen_toks": []}, "max_gen_toks must be a number"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Sampling(**options(given))


@pytest.mark.parametrize("seed", ["x", 1.5, float("nan"), True])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(UserError, match="seed must be a"):
        list(seeds([asked("A", seed=seed)], 0))


def test_a_token_model_refuses_what_it_cannot_do() -> None:
    assert "top_p" in options({"top_p": 0.5})
    with pytest.raises(UserError, match="top_p cannot be done by a token model"):
        options({"top_p": 0.5}, samples=False)
    assert blt.UserError is UserError
