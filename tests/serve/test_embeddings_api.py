"""Embeddings over HTTP are the library's, for OpenAI's client and for any bytes."""

from __future__ import annotations

import base64

import numpy as np
import openai
import pytest
import torch

import blt
from served import Served

TEXTS = ["The old man", "", "é\x00", "and the sea " * 20]


def expected(served: Served, texts: list[str] | list[bytes]) -> np.ndarray:
    return served.lm.embed(texts, normalize=True).numpy()


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_openai_client_gets_the_vectors_of_the_library(
    served: Served, encoding: str | None
) -> None:
    options = {} if encoding is None else {"encoding_format": encoding}
    found = served.client().embeddings.create(model="tiny", input=TEXTS, **options)
    assert [one.index for one in found.data] == list(range(len(TEXTS)))
    vectors = [one.embedding for one in found.data]
    if encoding == "base64":  # asked for, so the client leaves it
        vectors = [np.frombuffer(base64.b64decode(one), "<f4") for one in vectors]
    assert np.allclose(np.array(vectors), expected(served, TEXTS), atol=1e-5)
    read = sum(len(text.encode()) for text in TEXTS)
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (read, read)
    assert found.model == "tiny"


def test_ids_and_bytes_are_texts_too(served: Served) -> None:
    data = b"\xff\x00 any"
    ids = blt.encode(data).tolist()
    (vector,) = expected(served, [data])
    for body in (
        {"input": ids},
        {"input": [ids]},
        {"input_bytes": base64.b64encode(data).decode()},
        {"input_bytes": [base64.b64encode(data).decode()], "user": "x", "dimensions": 64},
    ):
        answer = served.post("/v1/embeddings", body).json()
        assert np.allclose(answer["data"][0]["embedding"], vector, atol=1e-5)
        assert len(answer["data"]) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": "a", "input_bytes": "YQ=="}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a" * 4001}, "input"),
        ({"input": [1000]}, "input"),
        ({"input": "a", "dimensions": 7}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "truncate": "END"}, "truncate"),
        ({"input": "a", "level": "byte"}, "level"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(
    served: Served, body: dict[str, object], param: str
) -> None:
    answer = served.post("/v1/embeddings", body)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


def test_another_model_is_not_there(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="there is tiny"):
        served.client().embeddings.create(model="other", input="x")


def test_vectors_are_of_length_one(served: Served) -> None:
    found = served.client().embeddings.create(model="tiny", input="x").data[0].embedding
    assert torch.tensor(found).norm() == pytest.approx(1, abs=1e-5)
