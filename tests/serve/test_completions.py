"""The official client of OpenAI gets what the engine writes."""

from __future__ import annotations

import base64
import json
import math

import httpx
import openai
import pytest

from blt.generate import Engine, Generation
from served import Served, wait_until
from texts import MULTILINGUAL

PROMPT = MULTILINGUAL[:90].decode("utf-8", "ignore")


def by_engine(served: Served, prompt: str | bytes, **options: object) -> Generation:
    engine = Engine(served.lm, max_batch=1)
    handle = engine.submit(prompt, **options)  # type: ignore[arg-type]
    engine.run()
    return handle.result()


def test_models_are_listed(served: Served) -> None:
    (model,) = served.client().models.list().data
    assert model.id == "tiny"
    assert (model.kind, model.rule, model.threshold) == ("blt", "entropy", 4.6)  # type: ignore[attr-defined]


def test_text_is_the_engines(served: Served) -> None:
    found = served.client().completions.create(
        model="tiny", prompt=PROMPT, max_tokens=60, temperature=0.9, top_p=0.95, seed=3
    )
    alone = by_engine(served, PROMPT, max_bytes=60, temperature=0.9, top_p=0.95, seed=3)
    assert found.choices[0].text == alone.text
    assert found.choices[0].finish_reason == {"eos": "stop"}.get(alone.finish_reason, "length")
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(PROMPT.encode())
    assert found.usage.completion_tokens == len(alone.data)
    extra = found.usage.model_extra or {}
    own = served.lm.patch(PROMPT).starts[1:]
    assert extra["prompt_patches"] == int(own.sum())
    assert extra["completion_patches"] == sum(alone.starts)


def test_lists_and_n_number_their_seeds(served: Served) -> None:
    found = served.client().completions.create(
        model="tiny", prompt=["a", "bc"], n=2, max_tokens=20, temperature=1, seed=7
    )
    for index, choice in enumerate(found.choices):
        prompt = ("a", "bc")[index // 2]
        alone = by_engine(served, prompt, max_bytes=20, temperature=1.0, seed=7 + index)
        assert (choice.index, choice.text) == (index, alone.text)


@pytest.mark.parametrize("options", [{}, {"echo": True}, {"n": 3}, {"logprobs": 2}])
def test_a_stream_says_what_the_whole_answer_says(
    served: Served, options: dict[str, object]
) -> None:
    """Random weights write bytes that are no characters, too: pieces still add up."""
    request = {"model": "tiny", "prompt": PROMPT, "max_tokens": 80, "seed": 5, **options}
    create = served.client().completions.create
    whole = create(**request)  # type: ignore[call-overload]
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    tokens: dict[int, list[object]] = {}
    usage = None
    for chunk in create(**request, stream=True, stream_options={"include_usage": True}):  # type: ignore[call-overload]
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.logprobs:
                parts = zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True)
                tokens.setdefault(choice.index, []).extend(parts)
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usage == whole.usage
    for choice in whole.choices:
        if choice.logprobs:
            parts = zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True)
            assert tokens[choice.index] == list(parts)


def test_valid_text_streams_in_whole_characters(served: Served) -> None:
    body = {"prompt": "é", "max_tokens": 60, "seed": 1, "valid_utf8": True, "stream": True}
    with httpx.stream("POST", f"{served.url}/v1/completions", json=body, timeout=60) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    texts = [json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]]
    assert "\ufffd" not in "".join(texts)
    alone = by_engine(served, "é", max_bytes=60, temperature=1.0, seed=1, valid_utf8=True)
    assert "".join(texts) == alone.text


def test_stop_strings_end_a_text_and_are_not_shown(served: Served) -> None:
    alone = by_engine(served, PROMPT, max_bytes=60, temperature=1.0, seed=2, valid_utf8=True)
    stop = alone.text[3:5]
    create = served.client().completions.create
    extra = {"valid_utf8": True}
    found = create(model="tiny", prompt=PROMPT, seed=2, stop=[stop, "never"], extra_body=extra)
    assert found.choices[0].text == alone.text[: alone.text.index(stop)]
    assert found.choices[0].finish_reason == "stop"


def test_echo_scores_the_prompt(served: Served) -> None:
    """As lm-evaluation-harness asks for it."""
    found = served.client().completions.create(
        model="tiny", prompt=PROMPT, max_tokens=0, echo=True, logprobs=3
    )
    choice = found.choices[0]
    assert choice.text == PROMPT
    assert choice.logprobs is not None
    nats = served.lm.nats([PROMPT.encode()])
    assert -sum(choice.logprobs.token_logprobs or []) == pytest.approx(nats, rel=1e-4)
    assert len(choice.logprobs.tokens or []) == len(PROMPT.encode())
    assert choice.logprobs.text_offset is not None
    assert PROMPT[choice.logprobs.text_offset[-1] :] == PROMPT[-1]


@pytest.mark.parametrize("more", [{}, {"echo": True}, {"echo": True, "patches": True, "n": 2}])
def test_a_prompt_that_is_only_read_is_counted_in_patches(
    served: Served, more: dict[str, object]
) -> None:
    body = {"prompt": [PROMPT, "x", ""], "max_tokens": 0, **more}
    usage = served.post("/v1/completions", body).json()["usage"]
    assert usage["prompt_patches"] == int(served.lm.patch(PROMPT).starts[1:].sum()) + 1
    assert usage["prompt_tokens"] == usage["total_tokens"] == len(PROMPT.encode()) + 1
    assert usage["completion_patches"] == 0


def test_bytes_go_in_and_out_as_they_are(served: Served) -> None:
    prompt = b"\xff\x00\xc3"
    body = {
        "prompt_bytes": base64.b64encode(prompt).decode(),
        "patches": True,
        "logprobs": 2,
        "seed": 4,
        "max_tokens": 40,
    }
    (choice,) = served.post("/v1/completions", body).json()["choices"]
    alone = by_engine(served, prompt, max_bytes=40, temperature=1.0, seed=4)
    said = choice["blt"]
    assert base64.b64decode(said["bytes"]) == alone.data
    assert said["starts"] == alone.starts
    assert said["logprobs"] == pytest.approx(alone.logprobs, abs=1e-4)
    assert [len(top) for top in said["top"]] == [2] * len(alone.data)
    assert said["drafted"] is None
    for top, byte, nats in zip(said["top"], alone.data, said["logprobs"], strict=True):
        assert top[0][1] >= top[1][1]
        assert nats <= top[0][1] + 1e-5
        assert dict(top).get(byte, nats) == pytest.approx(nats)


def test_drafts_are_marked_and_change_no_greedy_text(served: Served) -> None:
    body = {"prompt": PROMPT, "max_tokens": 60, "temperature": 0, "patches": True}
    plain = served.post("/v1/completions", body).json()["choices"][0]
    drafted = served.post("/v1/completions", body | {"draft_bytes": 4}).json()["choices"][0]
    assert drafted["blt"]["bytes"] == plain["blt"]["bytes"]
    marks = set(drafted["blt"]["drafted"])
    assert "accepted" in marks
    assert marks <= {None, "accepted", "rejected-replacement"}


def test_patches_and_scores_are_the_librarys(served: Served) -> None:
    body = {"text": PROMPT, "rules": [{"rule": "model"}, {"rule": "static", "stride": 3}]}
    found = served.post("/v1/patches", body).json()
    own = served.lm.patch(PROMPT)
    assert own.entropies is not None
    size = len(PROMPT.encode())
    assert found["bytes"] == len(found["entropies"]) == len(found["surprise"]) == size
    assert found["entropies"] == pytest.approx(own.entropies[:-1].tolist(), abs=1e-5)
    assert found["patches"][0]["starts"] == own.starts[1:].nonzero().flatten().tolist()
    assert found["patches"][1]["starts"] == list(range(0, size, 3))
    scored = served.post("/v1/score", {"text": PROMPT}).json()
    assert scored["bits_per_byte"] == pytest.approx(served.lm.bits_per_byte(PROMPT), rel=1e-4)
    assert math.isclose(sum(scored["bits"]) / size, scored["bits_per_byte"], rel_tol=1e-4)
    assert scored["patches"] == len(found["patches"][0]["starts"])


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(served: Served, stream: bool) -> None:
    body = {"prompt": "x", "max_tokens": 100_000, "n": 8, "stream": stream, "ignore_eos": True}
    left = served.metric("blt_clients_left_total")
    with httpx.Client(timeout=60) as client:
        if stream:
            with client.stream("POST", f"{served.url}/v1/completions", json=body) as answer:
                next(answer.iter_bytes())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{served.url}/v1/completions", json=body, timeout=0.5)
    assert served.becomes_idle()
    assert wait_until(lambda: served.metric("blt_clients_left_total") == left + 1)


@pytest.mark.parametrize(
    ("request_", "error", "word"),
    [
        ({"model": "other"}, openai.NotFoundError, "tiny"),
        ({"max_tokens": 10**6}, openai.UnprocessableEntityError, "max_tokens"),
        ({"n": 100}, openai.UnprocessableEntityError, "choices"),
        ({"temperature": -1}, openai.UnprocessableEntityError, "temperature"),
        ({"suffix": "x"}, openai.UnprocessableEntityError, "suffix"),
        ({"stop": [""]}, openai.UnprocessableEntityError, "stop"),
        ({"extra_body": {"nonsense": 1}}, openai.UnprocessableEntityError, "nonsense"),
        ({"prompt": "x" * 5000}, openai.UnprocessableEntityError, "prompt: .*5000"),
        ({"prompt": []}, openai.UnprocessableEntityError, "prompt: an empty list"),
        ({"prompt": ["x", 5]}, openai.UnprocessableEntityError, r"prompt\.1: .*string"),
        ({"prompt": ["x"] * 9}, openai.UnprocessableEntityError, "9 choices"),
        ({"best_of": 2}, openai.UnprocessableEntityError, "best_of: must equal n"),
        ({"frequency_penalty": 1}, openai.UnprocessableEntityError, "not supported: only 0 is"),
        ({"logit_bias": {"5": 1}}, openai.UnprocessableEntityError, "logit_bias is not supported"),
    ],
)
def test_what_is_impossible_is_refused_by_name(
    served: Served, request_: dict[str, object], error: type[openai.APIStatusError], word: str
) -> None:
    with pytest.raises(error, match=word) as refused:
        served.client().completions.create(**{"model": "tiny", "prompt": "x", **request_})  # type: ignore[call-overload]
    (name,) = request_.get("extra_body", request_)  # type: ignore[attr-defined,misc]
    assert (refused.value.param or "").split(".")[0] == name
