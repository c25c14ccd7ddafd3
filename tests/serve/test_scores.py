"""Scores over HTTP are the library's, also for lm-evaluation-harness, which counts entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import lm_eval
import openai
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

from blt import vocab
from blt.evals.harness import Harness
from blt.serve.settings import Settings
from blt.serve.writing import token
from served import Served, serving
from shapes import random_blt

ENDS = b"the answer is: b"  # EOS is the likeliest after it


@pytest.fixture(scope="module")
def ending() -> Iterator[Served]:
    """A server whose model would end right after a certain text, and after like ones."""
    lm = random_blt()
    states: list[torch.Tensor] = []
    hook = lm.decoder.head.register_forward_hook(lambda _, args, __: states.append(args[0][-1]))
    lm.logits(vocab.encode(ENDS))
    hook.remove()
    with torch.no_grad():
        lm.decoder.head.weight[vocab.EOS] = 3 * states[0]
    assert int(lm.logits(vocab.encode(ENDS))[-1].argmax()) == vocab.EOS
    with serving(Settings("tiny", max_batch=4), lm) as server:
        yield server


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_ids", [False, True])
def test_an_end_of_text_has_an_entry_of_its_own(ending: Served, stream: bool, as_ids: bool) -> None:
    prompts = [list(vocab.encode(ENDS, bos=False).tolist())] * 2 if as_ids else [ENDS.decode()] * 2
    found = ending.client().completions.create(  # type: ignore[call-overload]
        model="tiny",
        prompt=prompts,
        echo=True,
        logprobs=2,
        max_tokens=1,
        temperature=0,
        n=2,
        stream=stream,
    )
    texts, tokens, nats, offsets, top = (
        [["" if kind is str else [] for _ in range(4)][i] for i in range(4)]
        for kind in (str, list, list, list, list)
    )
    for answer in found if stream else [found]:
        for choice in answer.choices:
            i = choice.index
            texts[i] += choice.text
            tokens[i] += choice.logprobs.tokens
            nats[i] += choice.logprobs.token_logprobs
            offsets[i] += choice.logprobs.text_offset
            top[i] += choice.logprobs.top_logprobs
    log_p = ending.lm.logits(vocab.encode(ENDS)).log_softmax(-1)
    ids = vocab.encode(ENDS, bos=False)
    for i in range(4):
        assert texts[i] == ENDS.decode()
        assert tokens[i] == [*ENDS.decode(), "<eos>"]
        assert nats[i][:-1] == pytest.approx(
            log_p[:-1].gather(1, ids[:, None])[:, 0].tolist(), abs=1e-4
        )
        assert nats[i][-1] == pytest.approx(float(log_p[-1, vocab.EOS]), abs=1e-4)
        assert offsets[i] == [*range(len(ENDS)), len(ENDS)]
        assert max(top[i][-1], key=top[i][-1].get) == "<eos>"
        assert len(top[i]) == len(ENDS) + 1


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=st.binary(max_size=40), lead=st.sampled_from(([], [vocab.BOS], [vocab.EOS])))
def test_a_prompt_always_has_an_entry_for_each_id_and_one_more(
    ending: Served, prompt: bytes, lead: list[int]
) -> None:
    ids = [*lead, *vocab.encode(prompt, bos=False).tolist()]
    body = {"prompt": [ids], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    answer = ending.post("/v1/completions", body).json()
    logprobs = answer["choices"][0]["logprobs"]
    for entries in logprobs.values():
        assert len(entries) == len(ids) + 1
    tokens = logprobs["tokens"][len(lead) : len(ids)]
    assert tokens == [chr(b) if b < 128 else f"bytes:\\x{b:02x}" for b in prompt]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 5])
def test_a_stop_string_has_entries_too_and_no_text(
    ending: Served, stream: bool, max_tokens: int
) -> None:
    how = {"valid_utf8": True, "ignore_eos": True}
    written = ending.lm.generate("abc", max_bytes=max_tokens, **how)
    found = ending.client().completions.create(  # type: ignore[call-overload]
        model="tiny",
        prompt="abc",
        echo=True,
        logprobs=1,
        max_tokens=5,
        temperature=0,
        stop=written.text,
        stream=stream,
        extra_body={**how, "patches": True},
    )
    parts = [part.choices[0] for part in (found if stream else [found])]
    assert "".join(part.text for part in parts) == "abc"
    assert parts[-1].finish_reason == "stop"
    entries = [part.logprobs for part in parts]
    nats = [one for part in entries for one in part.token_logprobs]
    assert nats[3:] == pytest.approx(written.logprobs, abs=1e-4)
    tokens = [one for part in entries for one in part.tokens]
    assert tokens[3:] == [token(byte) for byte in written.data]
    offsets = [one for part in entries for one in part.text_offset]
    assert offsets == [0, 1, 2, *[3] * len(written.data)]
    assert sum(len(part.top_logprobs) for part in entries) == len(tokens)
    assert sum(len(part.blt["logprobs"]) for part in parts) == 3  # of the text alone


def test_ids_that_are_no_bytes_are_refused_by_their_place(ending: Served) -> None:
    for prompt, where in (
        ([65, 0], r"prompt\.1: id 0 "),
        ([[69], [69, 260]], r"prompt\.1\.1: id 260 "),
        ([[69, vocab.BOS]], r"prompt\.0\.1: id 1 "),
        ([-1], r"prompt\.0: id -1 "),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=where):
            ending.client().completions.create(model="tiny", prompt=prompt, max_tokens=1)  # type: ignore[arg-type]


def test_ids_are_the_text_they_stand_for(ending: Served) -> None:
    for path, body, key, expected in (
        ("/tokenize", {"prompt": "ab\n"}, "tokens", [101, 102, 14]),
        ("/tokenize", {"prompt": "a", "add_special_tokens": True}, "tokens", [vocab.BOS, 101]),
        ("/tokenize", {"prompt": "<eos>"}, "tokens", [vocab.EOS]),
        ("/tokenize", {"prompt": "<eos>."}, "count", 6),
        ("/detokenize", {"tokens": [101, 102]}, "prompt", "ab"),
    ):
        assert ending.post(path, body).json()[key] == expected
    assert ending.post("/detokenize", {"tokens": [300]}).status_code == 422


def test_the_harness_scores_a_server_as_it_scores_the_model(ending: Served, tmp_path: Path) -> None:
    """As ``lm_eval --model local-completions`` does by itself: ids, tokenised by the server."""
    # As the harness's tasks have them; of itself it moves spaces from a context's end.
    questions = [f"Item {n} answer:" for n in range(6)] + ["the answer is:", ""]
    pairs = [(question, choice) for question in questions for choice in (" a", " b", " c", " é")]
    written = ending.lm.generate(questions[0], max_bytes=1, valid_utf8=True)
    pairs.append((questions[0], written.text))
    asked = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    ending.lm.save(tmp_path / "model")
    expected = Harness(str(tmp_path / "model")).loglikelihood(asked)
    server = LocalCompletionsAPI(
        base_url=f"{ending.url}/v1/completions", model="tiny", max_retries=1, batch_size=3
    )
    found = server.loglikelihood(asked, disable_tqdm=True)
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in expected], abs=1e-3)
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]
    assert expected[-1][1]
    choices = [[nats for nats, _ in found][4 * i : 4 * i + 4] for i in range(len(questions))]
    assert all(len(set(of)) == 4 for of in choices)


@pytest.mark.parametrize("options", [{}, {"num_concurrent": 2}, {"tokenized_requests": False}])
def test_a_task_over_http_has_the_scores_of_blt_lm_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    """What docs/evaluation.md says to run, from a server with keys."""
    data, keys, model = (tmp_path / name for name in ("items.jsonl", "keys", "model"))
    items = [{"ctx": f"Scene {n}:", "ends": ["No.", "é!", "\xa0", "…"]} for n in range(3)]
    data.write_text("\n".join(map(json.dumps, items)))
    keys.write_text("secret")
    keys.chmod(0o600)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    task = {
        "task": "items",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path)},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{ctx}}",
        "doc_to_target": 1,
        "doc_to_choice": "{{ends}}",
    }

    def scores(name: str, **arguments: object) -> list[tuple[float, bool]]:
        tasks = TaskManager(include_defaults=False)
        found = lm_eval.simple_evaluate(
            name, model_args=arguments, tasks=[dict(task)], task_manager=tasks, bootstrap_iters=0
        )
        return [one[0] for item in found["samples"]["items"] for one in item["resps"]]

    with serving(Settings("tiny", keys=str(keys))) as server:
        server.lm.save(model)
        url = f"{server.url}/v1/completions"
        own = scores("blt", pretrained=str(model))
        there = scores(
            "local-completions",
            base_url=url,
            model="tiny",
            auth_token="secret",
            max_retries=1,
            **options,
        )
    assert [nats for nats, _ in there] == pytest.approx([nats for nats, _ in own], abs=1e-3)
    assert [greedy for _, greedy in there] == [greedy for _, greedy in own]
    assert len(own) == 12


def test_models_can_be_retrieved_and_other_routes_say_what_there_is(ending: Served) -> None:
    assert ending.client().models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="there is tiny"):
        ending.client().models.retrieve("other/model")
    for path, hint in (
        ("/chat/completions", "chats are at /v1/chat/completions"),
        ("/embeddings", "/v1/embeddings"),
        ("/v1/nonsense", "/v1/completions"),
        ("/completions", "/v1/completions"),
    ):
        answer = ending.post(path, {})
        assert answer.status_code == 404
        assert hint in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("neutral", "otherwise"),
    [
        ({"suffix": ""}, {"suffix": "x"}),
        ({"metadata": {"a": "b"}}, {"metadata": 5}),
        ({"min_tokens": 0}, {"min_tokens": 5}),
        ({"response_format": {"type": "text"}}, {"response_format": {"type": "json_object"}}),
        ({"length_penalty": 1.0}, {"length_penalty": 2.0}),
        ({"use_beam_search": False}, {"use_beam_search": True}),
        ({"logit_bias": {}}, {"logit_bias": {"5": 1}}),
        ({"store": False}, {"store": 0}),
        ({"stop_token_ids": None}, {"stop_token_ids": [5]}),
        ({"top_k": -1}, {"top_k": -2}),
        ({"top_k": 0}, {"top_k": 1.5}),
    ],
)
def test_what_other_servers_take_is_taken_where_it_changes_nothing(
    ending: Served, neutral: dict[str, object], otherwise: dict[str, object]
) -> None:
    body = {"prompt": "x", "max_tokens": 3, "temperature": 0}
    expected = ending.post("/v1/completions", body).json()["choices"]
    assert ending.post("/v1/completions", body | neutral).json()["choices"] == expected
    refused = ending.post("/v1/completions", body | otherwise)
    assert refused.status_code == 422
    (name,) = otherwise
    assert name in refused.json()["error"]["message"]


def test_an_option_that_a_rule_does_not_use_is_refused(ending: Served) -> None:
    for rule, option in (("space", "stride"), ("static", "threshold"), ("model", "stride")):
        refused = ending.post("/v1/patches", {"text": "x", "rules": [{"rule": rule, option: 2}]})
        assert refused.status_code == 422
        assert f"{option}: does nothing for rule" in refused.json()["error"]["message"]
        assert refused.json()["error"]["param"] == f"rules.0.{option}"
