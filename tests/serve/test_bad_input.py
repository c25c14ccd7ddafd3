"""Input that nobody should send is refused as such, and the server goes on."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from blt.serve import errors
from blt.serve.guard import HEADER_BYTES
from blt.serve.settings import Limits, Settings
from served import Served, address, raw_status, serving

JSON = {"Content-Type": "application/json"}
LONG = {"prompt": "x", "max_tokens": 100_000, "ignore_eos": True}


@pytest.mark.parametrize(
    "request_",
    [
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-Huge: " + "a" * 200_000,
        "GET /" + "a" * 200_000 + " HTTP/1.1\r\nHost: localhost",
        "GET /\x00 HTTP/1.1\r\nHost: localhost",
        "GET /%00 HTTP/1.1\r\nHost: localhost",
        "NONSENSE",
        b"\x16\x03\x01\x00\xff",
        "GET / HTTP/1.1",  # no host
        "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1",
        "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6",
        "DELETE /v1/models HTTP/1.1\r\nHost: localhost",
        "GET http://other/page/../../x HTTP/1.1\r\nHost: localhost",
    ],
)
def test_what_is_not_quite_http_gets_4xx(served: Served, request_: str | bytes) -> None:
    assert 400 <= raw_status(served, request_) < 500


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\x00", 400),
        (b'{"text": "\xff"}', 400),
        (b'{"text": "\\ud800"}', 422),
        (b'{"text": "x", "x": NaN}', 422),
        (b"[" * 50_000, 400),
        (b'{"text": ' + b"9" * 5000 + b"}", 400),
        (b'{"text": null}', 422),
        (b'{"text": "x", "bytes": "eA=="}', 422),
        (b'{"bytes": "not base64"}', 422),
        (b'{"bytes": "abc"}', 422),
        (b"x" * 200_000, 413),
        (b'{"text": "x", "text": {}}', 422),
        (b"[]", 422),
    ],
)
def test_bodies_that_are_not_what_they_should_be(served: Served, body: bytes, status: int) -> None:
    answer = httpx.post(f"{served.url}/v1/score", content=body, headers=JSON)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b'{"text": }', "the body is not valid JSON: Expecting value, at character 9", None),
        (b'{"text": "\xff"}', "the body is not UTF-8: byte 10 begins no character", None),
        (b"[" * 50_000, "the body is not read: its JSON is nested too deeply", None),
        (b'{"text": 1' + b"0" * 5000 + b"}", "a number in it has too many digits", None),
        (b"", "the body: Field required", None),
        (b"[]", "the body: Input should be a valid dictionary", None),
        (b"{}", "text: give text, or bytes in base64, and not both", "text"),
        (b'{"bytes": "abc"}', "bytes: not base64", "bytes"),
        (b'{"text": "x", "other": 1}', "other: Extra inputs are not permitted", "other"),
    ],
)
def test_a_refused_body_is_told_what_is_wrong_with_it(
    served: Served, body: bytes, message: str, param: str | None
) -> None:
    error = httpx.post(f"{served.url}/v1/score", content=body, headers=JSON).json()["error"]
    assert message in error["message"]
    assert error["param"] == param


HALF = '"\\ud83d"'  # what JavaScript sends of an emoji that was cut in two


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/tokenize", f'{{"prompt": {HALF}}}', "prompt"),
        ("/v1/score", f'{{"text": {HALF}}}', "text"),
        ("/v1/completions", f'{{"prompt": {HALF}}}', "prompt"),
        ("/v1/completions", f'{{"prompt": ["a", {HALF}]}}', "prompt.1"),
        ("/v1/completions", f'{{"prompt": "a", "stop": ["b", {HALF}]}}', "stop"),
        ("/v1/embeddings", f'{{"input": {HALF}}}', "input"),
        ("/v1/embeddings", f'{{"input": ["a", {HALF}]}}', "input.1"),
        ("/v1/score", f'{{"text": "a", {HALF}: 1}}', None),
    ],
)
def test_half_a_surrogate_pair_is_refused_where_it_stands(
    served: Served, route: str, body: str, param: str | None
) -> None:
    answer = httpx.post(served.url + route, content=body.encode(), headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/completions", {"prompt": [{}] * 20_000}),
        ("/v1/completions", {"prompt": [[{}] * 10_000] * 2}),
        ("/v1/completions", {"prompt": "x", "stop": [1] * 20_000}),
        ("/v1/completions", {"prompt_bytes": [1] * 20_000}),
        ("/v1/completions", {f"x{n}": n for n in range(6000)}),
        ("/v1/embeddings", {"input": [None] * 15_000}),
        ("/v1/patches", {"text": "x", "rules": [1] * 20_000}),
        ("/v1/score", {"text": "x"} | {f"x{n}": n for n in range(6000)}),
        ("/detokenize", {"tokens": ["x"] * 15_000}),
    ],
)
def test_of_many_errors_few_are_looked_for(
    served: Served, route: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of them all would hold up everybody else."""
    seen: list[int] = []
    usual = errors.of_validation

    def counted(error: Any) -> Any:
        seen.append(len(error.errors()))
        return usual(error)

    monkeypatch.setattr(errors, "of_validation", counted)
    assert served.post(route, body).status_code == 422
    assert seen[0] <= 8


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "true", '"1"', "[]"])
def test_numbers_that_are_none_are_refused(served: Served, value: str) -> None:
    for name in ("temperature", "max_tokens", "seed", "top_p"):
        body = f'{{"prompt": "x", "{name}": {value}}}'
        answer = httpx.post(f"{served.url}/v1/completions", content=body, headers=JSON)
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == name


def test_compressed_bodies_and_other_types_are_refused(served: Served) -> None:
    for headers in (
        JSON | {"Content-Encoding": "gzip"},
        JSON | {"Content-Encoding": "br"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {},
    ):
        answer = httpx.post(f"{served.url}/v1/score", content=b'{"text": "x"}', headers=headers)
        assert answer.status_code == 415


def test_a_body_without_a_length_is_counted_as_it_comes(served: Served) -> None:
    def endless() -> object:
        while True:
            yield b" " * 10_000

    with httpx.Client() as client:
        try:
            answer = client.post(f"{served.url}/v1/score", content=endless(), headers=JSON)  # type: ignore[arg-type]
            assert answer.status_code == 413
        except httpx.WriteError:  # the server has hung up on it
            pass
    assert httpx.get(f"{served.url}/healthz").status_code == 200


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_may_have_as_many_bytes_as_the_limit_and_not_one_more(
    served: Served, declared: bool
) -> None:
    limit = served.service.settings.limits.body_bytes
    for size, status in ((limit, 200), (limit + 1, 413)):
        body = b'{"text": "x"}'.ljust(size)
        content = body if declared else iter([body])  # without a length it comes in chunks
        answer = httpx.post(f"{served.url}/v1/score", content=content, headers=JSON)
        assert answer.status_code == status


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with (
        serving(Settings("tiny", limits=Limits(body_seconds=0.2))) as server,
        socket.create_connection(address(server), timeout=20) as raw,
    ):
        raw.sendall(head + b"Content-Length: 99\r\n\r\n{")
        assert b" 408 " in raw.recv(1000)


@given(st.binary(max_size=300))
def test_any_bytes_can_be_cut_and_scored(served: Served, data: bytes) -> None:
    from base64 import b64encode

    for path in ("/v1/score", "/v1/patches"):
        answer = served.post(path, {"bytes": b64encode(data).decode()})
        assert answer.status_code == 200
        assert answer.json()["bytes"] == len(data)


CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_made_from_the_schema_is_answered_with_5xx(
    served: Served, mode: GenerationMode
) -> None:
    """Valid ones and invalid ones; the answers are what the schema says."""
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    assert {"/healthz", "/metrics"} < set(schema.raw_schema["paths"])
    operations = [operation.ok() for operation in schema.get_all_operations()]
    able = [operation for operation in operations if mode.is_positive or operation.body]
    statuses = set()

    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.one_of(operation.as_strategy(generation_mode=mode) for operation in able))
    def ask(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("max_tokens"), int):
            case.body["max_tokens"] %= 4  # what is allowed may take long
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    ask()
    assert (200 if mode.is_positive else 422) in statuses


def test_a_stream_is_what_the_schema_says(served: Served) -> None:
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    body = {"prompt": "a", "stream": True, "max_tokens": 3}
    case = schema["/v1/completions"]["POST"].Case(body=body, media_type="application/json")
    answer = case.call_and_validate(checks=CHECKS)
    assert "text/event-stream" in answer.headers["content-type"][0]


@pytest.mark.parametrize("size", [40_000, 100_000, 1_000_000])
def test_huge_headers_are_refused_however_they_come(served: Served, size: int) -> None:
    """In one piece, which the HTTP library lets through, or in many."""
    with suppress(httpx.ReadError, httpx.WriteError):  # the server may hang up while they come
        answer = httpx.get(f"{served.url}/healthz", headers={"X": "a" * size})
        assert 400 <= answer.status_code < 500
    assert httpx.get(f"{served.url}/healthz").status_code == 200


def test_headers_may_have_as_many_bytes_as_the_limit_and_not_one_more(served: Served) -> None:
    others = len("Host" + "localhost" + "X")
    for size, status in ((HEADER_BYTES, b" 200 "), (HEADER_BYTES + 1, b" 431 ")):
        with socket.create_connection(address(served)) as raw:
            head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n"
            raw.sendall(head % (b"a" * (size - others)))
            assert status in raw.recv(1000)
