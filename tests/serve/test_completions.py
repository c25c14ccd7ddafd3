"""The official client of OpenAI gets what the engine writes."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import httpx
import openai
import pytest
import torch

from blt import vocab
from blt.generate import Engine, Generation
from served import Served, wait_until
from texts import MULTILINGUAL

PROMPT = MULTILINGUAL[:90].decode("utf-8", "ignore")


def by_engine(served: Served, prompt: str | bytes, **options: object) -> Generation:
    """What the engine writes; text is valid if nobody says otherwise."""
    engine = Engine(served.lm, max_batch=1)
    options = {"valid_utf8": True, **options}
    handle = engine.submit(prompt, **options)  # type: ignore[arg-type]
    engine.run()
    return handle.result()


def test_models_are_listed(served: Served) -> None:
    (model,) = served.client().models.list().data
    assert model.id == "tiny"
    assert (model.kind, model.rule, model.threshold) == ("blt", "entropy", 4.6)  # type: ignore[attr-defined]


def test_a_card_holds_nothing_that_is_never_said(served: Served) -> None:
    card = httpx.get(f"{served.url}/v1/models").json()["data"][0]
    assert None not in card.values()


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


ANY_BYTES = {"extra_body": {"valid_utf8": False}}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"echo": True},
        {"n": 3},
        {"logprobs": 2},
        ANY_BYTES,
        {"n": 2, "logprobs": 2, **ANY_BYTES},
    ],
)
def test_a_stream_says_what_the_whole_answer_says(
    served: Served, options: dict[str, object]
) -> None:
    """Random weights write bytes that are no characters, if they may: pieces still add up."""
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
    body = {"prompt": "é", "max_tokens": 60, "seed": 1, "stream": True}
    with httpx.stream("POST", f"{served.url}/v1/completions", json=body, timeout=60) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    texts = [json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]]
    assert "\ufffd" not in "".join(texts)
    alone = by_engine(served, "é", max_bytes=60, temperature=1.0, seed=1)
    assert "".join(texts) == alone.text


@pytest.mark.parametrize("stream", [False, True])
def test_texts_are_whole_characters_unless_a_request_says_otherwise(
    served: Served, stream: bool
) -> None:
    """Also where a prompt ends within a character: the first of the text is then that one."""
    for begun in (b"", b"\xc3", b"\xf0\x9f", b"\xff"):
        prompt = base64.b64encode(b"x" + begun).decode()
        body = {"prompt_bytes": [prompt] * 2, "n": 2, "max_tokens": 30, "seed": 3, "patches": True}
        for drafts in (0, 3):
            body |= {"draft_bytes": drafts, "stream": stream}
            choices = texts_of(served, body)
            for text, data in choices.values():
                unfinished = begun if begun != b"\xff" else b""
                assert text.encode() == unfinished + data
                (unfinished + data).decode()
    (text, data) = texts_of(served, body | {"valid_utf8": False, "n": 1})[0]
    assert text == data.decode("utf-8", "replace")
    assert "\ufffd" in text


def texts_of(served: Served, body: dict[str, Any]) -> dict[int, tuple[str, bytes]]:
    """Text and bytes of each choice."""
    answer = served.post("/v1/completions", body)
    lines = [line[6:] for line in answer.text.split("\n\n") if line[:7] == "data: {"]
    found: dict[int, tuple[str, bytes]] = {}
    for part in map(json.loads, lines) if body["stream"] else [answer.json()]:
        for choice in part["choices"]:
            text, data = found.get(choice["index"], ("", b""))
            more = base64.b64decode(choice["blt"]["bytes"])
            found[choice["index"]] = (text + choice["text"], data + more)
    return found


def test_logprobs_of_valid_text_are_the_models_own(served: Served) -> None:
    """Over all bytes, what the mask forbids among them."""
    body = {"prompt": PROMPT, "max_tokens": 40, "seed": 1, "logprobs": 5, "patches": True}
    said = served.post("/v1/completions", body).json()["choices"][0]["blt"]
    data = base64.b64decode(said["bytes"])
    data.decode()
    ids = vocab.encode(PROMPT.encode() + data)
    log_p = torch.log_softmax(served.lm.logits(ids), -1)[-len(data) - 1 : -1]
    own = log_p.gather(1, ids[-len(data) :, None])[:, 0].tolist()
    assert said["logprobs"] == pytest.approx(own, abs=1e-3)
    best = (log_p[:, vocab.OFFSET :].max(1).values).tolist()
    assert [max(nats for _, nats in top) for top in said["top"]] == pytest.approx(best, abs=1e-3)


def test_stop_strings_end_a_text_and_are_not_shown(served: Served) -> None:
    alone = by_engine(served, PROMPT, max_bytes=60, temperature=1.0, seed=2)
    stop = alone.text[3:5]
    create = served.client().completions.create
    found = create(model="tiny", prompt=PROMPT, seed=2, stop=[stop, "never"])
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
        "valid_utf8": False,
    }
    (choice,) = served.post("/v1/completions", body).json()["choices"]
    how = {"temperature": 1.0, "seed": 4, "valid_utf8": False}
    alone = by_engine(served, prompt, max_bytes=40, **how)
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
