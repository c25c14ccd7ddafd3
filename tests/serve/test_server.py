"""Keys, limits, back-pressure, metrics, drain: what a server needs besides answers."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from blt import cli
from blt.errors import UserError
from blt.serve import run
from blt.serve.analysis import Analysis
from blt.serve.keys import Keys
from blt.serve.pace import Pace
from blt.serve.settings import Limits, Settings
from served import Served, address, raw_status, serving, wait_until
from shapes import random_blt

JSON = {"Content-Type": "application/json"}
LONG = {"prompt": "x", "max_tokens": 100_000, "ignore_eos": True}


# --- keys, CORS, the page ------------------------------------------------------------------------


def test_a_wrong_or_missing_key_gets_401_before_the_body(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# ours\nfirst-key\n\n  second-key\n")
    with serving(Settings("tiny", keys=str(keys))) as server:
        for key in ("first-key", "second-key"):
            assert server.client(api_key=key).models.list().data
        for key in ("nonsense", "first-key ", "# ours", "first-ke"):
            if key.strip() != "first-key":
                with pytest.raises(openai.AuthenticationError):
                    server.client(api_key=key).models.list()
        for path in ("/v1/models", "/metrics", "/nonsense"):
            assert httpx.get(server.url + path).status_code == 401
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        # Answered although the body that is announced never comes.
        with socket.create_connection(address(server)) as raw:
            raw.sendall(b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n")
            assert b" 401 " in raw.recv(1000)


def test_a_file_without_keys_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n# nothing\n")
    with pytest.raises(UserError, match="no API key"):
        Keys.read(str(tmp_path / "keys"))


def test_other_sites_may_call_only_if_they_are_named(served: Served) -> None:
    asking = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    refused = httpx.options(f"{served.url}/v1/score", headers=asking)
    assert "access-control-allow-origin" not in refused.headers
    with serving(Settings("tiny", cors_origins=("https://a.example",))) as server:
        found = httpx.options(f"{server.url}/v1/score", headers=asking)
        assert found.headers["access-control-allow-origin"] == "https://a.example"
        sent = "authorization,content-type,x-stainless-os"  # by OpenAI's client in a browser
        asked = asking | {"Access-Control-Request-Headers": sent}
        assert httpx.options(f"{server.url}/v1/score", headers=asked).status_code == 200
        other = httpx.options(f"{server.url}/v1/score", headers=asking | {"Origin": "https://b"})
        assert "access-control-allow-origin" not in other.headers
        said = httpx.get(f"{server.url}/v1/models", headers={"Origin": "https://a.example"})
        assert said.headers["access-control-expose-headers"] == "X-Request-Id, Retry-After"


@pytest.mark.parametrize("origin", ["foo", "a.example", "https://a.example/", "https://A.example"])
def test_a_site_that_no_browser_would_name_so_is_refused(origin: str) -> None:
    with pytest.raises(UserError, match=f"cors_origins: '{origin}'"):
        Settings("tiny", cors_origins=("*", "http://localhost:3000", origin))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--batch", "0"), ("--queue", "-1"), ("--memory-mb", "0"), ("--max-body", "0"),
     ("--timeout", "0"), ("--drain", "nan"), ("--draft-bytes", "-1"), ("--cors-origin", "foo"),
     ("--allowed-host", "a:1"), ("--max-connections", "0"), ("--max-per-address", "-1")],
)  # fmt: skip
def test_an_impossible_option_is_refused_by_its_own_name(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", option, value]) == 2
    assert capsys.readouterr().err.startswith(f"blt: {option}")


def test_the_page_comes_from_the_package_and_nothing_else_does(served: Served) -> None:
    for path in ("/page/../server.py", "/page/%2e%2e/app.py", "/page/app.py", "/page/..%2fapp.py"):
        assert raw_status(served, f"GET {path} HTTP/1.1\r\nHost: localhost") in (400, 404)
    index = httpx.get(served.url)
    if index.status_code == 200:
        assert index.headers["content-security-policy"].startswith("default-src 'self'")
    else:
        assert index.status_code == 404


# --- back-pressure, time, failure -----------------------------------------------------------------


def test_a_full_queue_says_429_and_when_to_come_back() -> None:
    with serving(Settings("tiny", max_batch=1, max_queue=2)) as server, httpx.Client() as client:
        streams = []
        for _ in range(20):
            request = client.build_request(
                "POST",
                f"{server.url}/v1/completions",
                json=LONG | {"stream": True, "max_tokens": 8192},
            )
            answer = client.send(request, stream=True)
            if answer.status_code == 429:
                break
            streams.append(answer)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        answer.read()
        assert answer.json()["error"]["code"] == "queue_full"
        with pytest.raises(openai.RateLimitError):
            server.client().completions.create(model="tiny", prompt="x")
        server.service.pace.seconds = 7.2  # of each of the two that wait
        refused = server.post("/v1/completions", {"prompt": "x"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "15")
        for stream in streams:
            stream.close()
        assert server.becomes_idle()
        server.service.pace.seconds = 0.0
        assert server.client().completions.create(model="tiny", prompt="x", max_tokens=3).choices
        assert server.service.pace.seconds > 0  # what has ended is what the next guess is made of


def test_the_time_to_come_back_follows_from_the_queue_and_what_a_job_takes() -> None:
    pace = Pace(4)
    assert pace.retry_after(1000) == 1  # nothing is known yet
    pace.ended(3.0, others=3)  # there was room for it
    assert [pace.retry_after(waiting) for waiting in (1, 4, 9, 1000)] == [1, 3, 7, 60]
    behind = Pace(4)
    behind.ended(9.0, others=11)  # it waited while eight before it ended: two turns, and its own
    assert behind.seconds == pytest.approx(3.0)
    for _ in range(100):
        behind.ended(1.0)
    assert behind.seconds == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_takes_too_long_is_ended(stream: bool) -> None:
    limits = Limits(timeout=0.5, max_bytes=100_000)
    with serving(Settings("tiny", limits=limits)) as server:
        answer = server.post("/v1/completions", LONG | {"stream": stream})
        if stream:
            last = [line for line in answer.text.splitlines() if line][-1]
            assert json.loads(last[6:])["error"]["code"] == "timeout"
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        assert server.becomes_idle()


ANALYSES = [
    ("score", "/v1/score", {"text": "x"}),
    ("patches", "/v1/patches", {"text": "x"}),
    ("embed", "/v1/embeddings", {"input": "x"}),
]


@pytest.mark.parametrize(("name", "path", "body"), ANALYSES)
def test_a_text_that_is_not_analysed_in_time_is_answered_so(
    name: str, path: str, body: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the error of completions; until it has ended, the next has to wait for its turn."""
    go = threading.Event()
    monkeypatch.setattr(Analysis, name, lambda *_: go.wait(timeout=60))
    with serving(Settings("tiny", max_queue=1, limits=Limits(timeout=0.3))) as server:
        answer = server.post(path, body)
        refused = server.post(path, body)
        go.set()
        assert wait_until(lambda: server.service._analyses == 0)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert answer.json()["error"]["type"] == "timeout_error"
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")


@pytest.mark.parametrize(("name", "path", "body"), ANALYSES)
def test_a_client_that_leaves_an_analysis_is_counted(
    name: str, path: str, body: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        go.wait(timeout=60)

    monkeypatch.setattr(Analysis, name, slow)
    with serving(Settings("tiny")) as server:
        data = json.dumps(body)
        with socket.create_connection(address(server)) as raw:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
            raw.sendall(f"{head}\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode())
            assert begun.wait(timeout=30)
        left = wait_until(lambda: server.metric("blt_clients_left_total") == 1)
        go.set()
        assert left
        assert wait_until(lambda: server.service._analyses == 0)


def test_an_engine_that_has_failed_is_told_and_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with serving(Settings("tiny")) as server:
        broken = RuntimeError("broken")

        def fail(*_: object) -> None:
            raise broken

        monkeypatch.setattr(server.service.engine.model, "extend", fail)
        answer = server.post("/v1/completions", LONG | {"max_tokens": 100})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_failed")
        assert httpx.get(f"{server.url}/healthz").status_code == 503
        assert server.post("/v1/completions", {"prompt": "x"}).status_code == 503
        # Its thread may end a moment after it has failed.
        monkeypatch.setattr(type(server.service.engine), "alive", property(lambda _: True))
        answer = server.post("/v1/completions", {"prompt": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_failed")


def test_what_nobody_has_foreseen_is_answered_counted_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(Settings("tiny", cors_origins=("https://a.example",))) as server:

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(Analysis, "score", fail)
        headers = {"Origin": "https://a.example"}
        answer = httpx.post(f"{server.url}/v1/score", json={"text": "x"}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        assert answer.headers["x-request-id"]
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        text = httpx.get(f"{server.url}/metrics").text
        assert 'blt_requests_total{path="/v1/score",status="500"} 1.0' in text
        assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("body", [{"prompt": "x"}, {"prompt": "x", "max_tokens": None}])
def test_a_completion_that_says_no_length_has_what_the_server_allows(body: dict[str, Any]) -> None:
    with serving(Settings("tiny", limits=Limits(max_bytes=10))) as server:
        answer = server.post("/v1/completions", body | {"ignore_eos": True})
        assert answer.json()["usage"]["completion_tokens"] == 10
        refused = server.post("/v1/completions", body | {"max_tokens": 11})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "max_tokens")


def test_prompts_of_refused_requests_are_not_counted() -> None:
    with serving(Settings("tiny", memory_budget=1)) as server:
        assert server.post("/v1/completions", {"prompt": "abc"}).status_code == 422
        assert server.metric("blt_prompt_bytes_total") == 0


def test_the_models_card_has_the_parameters_of_its_rule() -> None:
    with serving(Settings("tiny"), random_blt("static", stride=9)) as server:
        (card,) = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert (card["rule"], card["parameters"]) == ("static", {"stride": 9})


# --- metrics and logs ----------------------------------------------------------------------------


def test_metrics_count_what_was_asked_and_written(served: Served) -> None:
    names = ("blt_prompt_bytes_total", "blt_completion_bytes_total")
    before = [served.metric(name) for name in names]
    body = {"prompt": "abc", "max_tokens": 10, "ignore_eos": True}
    served.post("/v1/completions", body)
    assert [served.metric(name) for name in names] == [before[0] + 3, before[1] + 10]
    text = httpx.get(f"{served.url}/metrics").text
    assert 'blt_requests_total{path="/v1/completions",status="200"}' in text
    httpx.get(f"{served.url}/made-up-by-a-client")
    assert "made-up" not in httpx.get(f"{served.url}/metrics").text


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "blt.serve"]


def test_logs_hold_no_text(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "blt.serve"):
        served.post("/v1/completions", {"prompt": "a secret", "max_tokens": 3})
        served.post("/v1/completions?secret=1", {"prompt": "a secret", "temperature": "secret"})
        served.post("/v1/score", {"text": "a secret"})
        httpx.get(f"{served.url}/secret")
        deadline = time.monotonic() + 10  # a line is written after its answer
        while len(logged(caplog)) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
    records = logged(caplog)
    assert len(records) == 4
    assert "secret" not in str([vars(record) for record in records])
    assert records[0].values["prompt_tokens"] == 8  # type: ignore[attr-defined]


def test_ids_and_counts_of_a_request_are_in_its_answer_and_its_line(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "blt.serve"):
        completion = served.post("/v1/completions", {"prompt": "abc", "max_tokens": 0})
        score = served.post("/v1/score", {"text": "abcd"})
        cut = served.post("/v1/patches", {"text": "abcde"})
        assert wait_until(lambda: len(logged(caplog)) == 3)
    lines = [record.values for record in logged(caplog)]  # type: ignore[attr-defined]
    ids = [answer.headers["x-request-id"] for answer in (completion, score, cut)]
    assert [line["id"] for line in lines] == ids
    assert ids[0] == completion.json()["id"]
    assert [name[:4] for name in ids] == ["cmpl", "req-", "req-"]
    assert [line["prompt_tokens"] for line in lines] == [3, 4, 5]
    assert lines[1]["prompt_patches"] == score.json()["patches"]


# --- the end -------------------------------------------------------------------------------------


def start(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "blt", "serve", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    return process, json.loads(process.stderr.readline())["url"]


def inside(url: str) -> float:
    """Choices in the engine."""
    found = re.findall(r"^blt_(?:running|waiting) (\S+)$", httpx.get(f"{url}/metrics").text, re.M)
    return sum(map(float, found))


def test_sigterm_lets_accepted_requests_finish_and_refuses_new_ones(tmp_path: Path) -> None:
    lm = random_blt()
    lm.save(tmp_path / "tiny")
    process, url = start(tmp_path / "tiny", "--batch", "2")
    ask = f"{url}/v1/completions"
    expected = lm.generate("x", max_bytes=2000, ignore_eos=True, valid_utf8=True).text
    body = {"prompt": "x", "max_tokens": 2000, "ignore_eos": True, "temperature": 0}
    pool = concurrent.futures.ThreadPoolExecutor()
    with process, pool, httpx.Client(timeout=60) as client:
        whole = [pool.submit(httpx.post, ask, json=body, timeout=60) for _ in range(3)]
        with client.stream("POST", ask, json=body | {"stream": True}) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            assert wait_until(lambda: inside(url) == 4)
            os.kill(process.pid, signal.SIGTERM)
            assert wait_until(lambda: httpx.get(f"{url}/healthz").status_code == 503)
            refused = httpx.post(ask, json=body, timeout=60)
            rest = [line for line in lines if line]
        assert refused.status_code == 503
        chunks = [json.loads(line[6:])["choices"][0] for line in [first, *rest[:-1]]]
        assert "".join(chunk["text"] for chunk in chunks) == expected
        assert rest[-1] == "data: [DONE]"
        for other in whole:
            assert other.result().json()["choices"][0]["text"] == expected
        assert process.wait(timeout=30) == 0


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` ends where a server would begin to answer."""
    monkeypatch.setattr(run.Server, "run", lambda *_, sockets: sockets[0].close())
    monkeypatch.setattr("blt.lm.load", lambda _, device, adapter: random_blt().to(device))
    monkeypatch.setattr(run.logs, "to_stderr", lambda: None)


@pytest.mark.parametrize(
    ("host", "keys", "warned"), [("0.0.0.0", "", 1), ("0.0.0.0", "keys", 0), ("127.0.0.2", "", 0)]
)
def test_whoever_opens_the_port_without_keys_is_warned(
    host: str,
    keys: str,
    warned: int,
    starts: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "keys").write_text("secret\n")
    (tmp_path / "keys").chmod(0o600)
    with caplog.at_level(logging.INFO, "blt.serve"):
        run.serve(Settings("tiny", keys=keys and str(tmp_path / keys)), host, 0)
    warnings = [found.getMessage() for found in caplog.records if found.levelname == "WARNING"]
    assert logged(caplog)[0].getMessage() == "listening"  # first: that is where others look
    assert len(warnings) == warned
    assert all("--keys" in message for message in warnings)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_when_it_says_that_it_listens_it_does(
    host: str, starts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    def connect(event: str, **values: object) -> None:
        if event == "listening":
            address = urlsplit(str(values["url"]))
            socket.create_connection((address.hostname, address.port), timeout=5).close()  # type: ignore[arg-type]
        said.append(event)

    monkeypatch.setattr(run.logs, "log", connect)
    run.serve(Settings("tiny"), host, 0)
    assert said == ["listening"]


def test_keys_that_others_can_read_are_warned_of(
    starts: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "keys").write_text("secret\n")
    (tmp_path / "keys").chmod(0o644)
    with caplog.at_level(logging.INFO, "blt.serve"):
        run.serve(Settings("tiny", keys=str(tmp_path / "keys")), "127.0.0.1", 0)
    first, warning = logged(caplog)
    assert first.getMessage() == "listening"
    assert "chmod o-r" in warning.getMessage()


def test_what_cannot_be_served_is_told_in_one_line(tmp_path: Path) -> None:
    random_blt().save(tmp_path / "tiny")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "blt", "serve", str(tmp_path / "tiny"), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("blt: cannot listen")
    assert done.stderr.count("\n") == 1
