"""Clients that say nothing, or slowly, or do not read: they go, and nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from blt.serve import protocol
from blt.serve.connections import Connections, address_of, connections_for, open_files
from blt.serve.settings import Limits, Settings
from served import Served, serving, wait_until

HEAD = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
ENDLESS = {"prompt": "x", "max_tokens": 100_000, "ignore_eos": True, "stream": True}
OTHER = "127.0.0.2"  # another address of this machine


def connect(served: Served) -> socket.socket:
    port = int(served.url.rsplit(":", 1)[1])
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def rest(raw: socket.socket) -> bytes:
    """What still comes until the server hangs up; fails if it does not."""
    data = b""
    with suppress(ConnectionResetError):
        while part := raw.recv(65536):
            data += part
    return data


def trickle(raw: socket.socket, text: bytes = b"X: " + b"x" * 10_000) -> bytes:
    """Send it byte by byte until the server hangs up; what it has said."""
    with suppress(BrokenPipeError, ConnectionResetError):
        for byte in text:
            raw.sendall(bytes([byte]))
            time.sleep(0.02)
    return rest(raw)


@contextmanager
def streams(served: Served, count: int) -> Iterator[None]:
    """So many requests that are in progress for as long as is wanted."""
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=60))
        for _ in range(count):
            request = client.stream("POST", f"{served.url}/v1/completions", json=ENDLESS)
            assert stack.enter_context(request).status_code == 200
        yield
    assert served.becomes_idle()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "GRACE_SECONDS", 0.1)


def test_idle_connections_and_slow_headers_cost_others_nothing(at_once: None) -> None:
    limits = Limits(header_seconds=1)
    settings = Settings("tiny", max_connections=8, max_per_address=4, limits=limits)
    with serving(settings) as server, ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(20)]
        slow = [stack.enter_context(connect(server)) for _ in range(20)]
        for raw in slow:
            raw.sendall(HEAD[:10])
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 3}).status_code == 200
        assert wait_until(lambda: server.metric("blt_connections") <= 5)  # this one asks
        assert server.metric('blt_connections_dropped_total{limit="places"}') >= 34
        said = [rest(raw) for raw in idle + slow]
        assert not any(said[:20])
        assert {answer[:13] for answer in said[20:]} <= {b"", b"HTTP/1.1 408 "}


def test_who_has_asked_is_answered_however_many_have_come_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop of asyncio accepts all that come while it is busy before it reads any of them."""
    monkeypatch.setattr(uvicorn.Config, "get_loop_factory", lambda _: asyncio.new_event_loop)
    with serving(Settings("tiny", max_connections=4)) as server, ExitStack() as stack:
        stands, goes_on = threading.Event(), threading.Event()
        server.service.bridge._loop.call_soon_threadsafe(lambda: (stands.set(), goes_on.wait()))
        assert stands.wait(20)
        asking = [stack.enter_context(connect(server)) for _ in range(3)]
        for raw in asking:
            raw.sendall(HEAD + b"\r\n")
        for _ in range(4):  # as many as may run over
            stack.enter_context(connect(server))
        goes_on.set()
        assert all(raw.recv(65536).startswith(b"HTTP/1.1 200 ") for raw in asking)


def test_a_connection_that_has_had_an_answer_outlasts_those_that_say_nothing(at_once: None) -> None:
    with serving(Settings("tiny", max_connections=4)) as server, ExitStack() as stack:
        kept = stack.enter_context(connect(server))
        kept.sendall(HEAD + b"\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        idle = [stack.enter_context(connect(server)) for _ in range(20)]
        assert rest(idle[0]) == b""
        kept.sendall(HEAD + b"\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_header_that_comes_byte_by_byte_is_answered_with_408() -> None:
    with (
        serving(Settings("tiny", limits=Limits(header_seconds=0.3))) as server,
        connect(server) as raw,
    ):
        raw.sendall(HEAD)
        said = trickle(raw)
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b'{"error":{"message":"no whole header within 0.3 seconds"' in said


def test_a_connection_is_kept_between_requests_but_not_for_long() -> None:
    limits = Limits(header_seconds=0.3, idle_seconds=1)
    with serving(Settings("tiny", limits=limits)) as server:
        with connect(server) as idle:
            for _ in range(3):
                idle.sendall(HEAD + b"\r\n")
                assert idle.recv(65536).startswith(b"HTTP/1.1 200 ")
            assert rest(idle) == b""
        with connect(server) as slow:  # in the header of its second request
            slow.sendall(HEAD + b"\r\n" + HEAD)
            said = trickle(slow)
            assert said.startswith(b"HTTP/1.1 200 ")
            assert b"HTTP/1.1 408 " in said


def test_a_body_that_nobody_waits_for_may_not_trickle_in_for_ever() -> None:
    with (
        serving(Settings("tiny", limits=Limits(header_seconds=0.3))) as server,
        connect(server) as raw,
    ):
        raw.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        assert trickle(raw).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("keep", [b"", b"Connection: close\r\n"])
def test_who_does_not_read_answers_is_cut_off(keep: bytes) -> None:
    """Whether the answers wait in the server, or the server for room to write them."""
    limits = Limits(unread_seconds=0.2, idle_seconds=0.2)
    with serving(Settings("tiny", limits=limits)) as server, connect(server) as raw:
        with suppress(ConnectionResetError, BrokenPipeError):
            asking = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n"
            raw.sendall((asking + b"\r\n") * 2000 + asking + keep + b"\r\n")
        dropped = 'blt_connections_dropped_total{limit="unread"}'
        assert wait_until(lambda: dropped in httpx.get(f"{server.url}/metrics").text)
        assert server.metric("blt_connections") <= 1


@pytest.mark.parametrize("stream", [True, False])
def test_who_does_not_read_a_completion_is_cut_off(stream: bool) -> None:
    asked = {"prompt": "x" * 2000, "echo": True, "logprobs": 20, "n": 16, "max_tokens": 9}
    body = json.dumps(asked | {"stream": stream}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    limits = Limits(unread_seconds=0.2, idle_seconds=0.2)
    with serving(Settings("tiny", limits=limits)) as server, connect(server) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        dropped = 'blt_connections_dropped_total{limit="unread"}'
        assert wait_until(lambda: dropped in httpx.get(f"{server.url}/metrics").text)
        assert server.becomes_idle()


def test_who_reads_slowly_gets_all_of_it() -> None:
    limits = Limits(unread_seconds=5, idle_seconds=5)
    with serving(Settings("tiny", limits=limits)) as server, connect(server) as raw:
        whole = len(httpx.get(f"{server.url}/openapi.json").content)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        asking = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n"
        raw.sendall((asking + b"\r\n") * 100 + asking + b"Connection: close\r\n\r\n")
        read = 0
        while part := raw.recv(65536):
            read += len(part)
            time.sleep(0.01)
        assert read > 100 * whole


def test_an_address_with_many_requests_in_progress_is_refused_alone() -> None:
    settings = Settings("tiny", max_per_address=2, limits=Limits(max_bytes=100_000))
    with serving(settings) as server, streams(server, 2):
        refused = server.post("/v1/completions", {"prompt": "x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "address_busy")
        assert "--max-per-address" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 0
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        other = httpx.Client(transport=httpx.HTTPTransport(local_address=OTHER))
        assert other.get(f"{server.url}/v1/models").status_code == 200
        assert other.get(f"{server.url}/v1/models").status_code == 200
        other.close()


def test_a_full_server_says_503_and_still_answers_for_its_health() -> None:
    settings = Settings("tiny", max_connections=2, limits=Limits(max_bytes=100_000))
    with serving(settings) as server:
        with streams(server, 2):
            refused = server.post("/v1/completions", {"prompt": "x"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_busy")
            assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}).status_code == 200


def test_what_is_not_http_gets_an_error_object(served: Served) -> None:
    endless = b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000
    for request, status in ((b"NONSENSE\r\n\r\n", 400), (endless, 431)):
        with connect(served) as raw:
            raw.sendall(request)
            said = rest(raw)
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert b'{"error":{"message":' in said


def test_a_connection_that_has_ended_leaves_nothing_behind() -> None:
    """Not even until the next collection of what holds itself."""

    def held() -> int:
        return sum(type(found) is protocol.Connection for found in gc.get_objects())

    with serving(Settings("tiny")) as server:
        gc.collect()
        before = held()
        gc.disable()
        try:
            for _ in range(50):
                connect(server).close()
            assert wait_until(lambda: server.metric("blt_connections") == 1)
            assert wait_until(lambda: held() <= before + 10)
        finally:
            gc.enable()


# --- places --------------------------------------------------------------------------------------


class Visitor:
    def __init__(self, address: str) -> None:
        self.address, self.dropped = address, False

    def drop(self) -> None:
        self.dropped = True


STEPS = st.tuples(st.sampled_from(["new", "kept", "ask", "leave", "trim"]), st.integers(0, 9))


@given(st.lists(STEPS, max_size=60))
def test_places_never_run_over_and_are_given_back(steps: list[tuple[str, int]]) -> None:
    """Of five visitors from each of two addresses."""
    open_, now = Connections(6, 4), 0.0
    visitors = [Visitor("ab"[index // 5]) for index in range(10)]
    for step, index in [*steps, ("trim", 0)]:
        visitor = visitors[index]
        now += 1.0
        if step == "leave":
            open_.leave(visitor)
        elif step == "ask":
            open_.ask(visitor)
        elif step == "trim":
            last = {tuple(found)[-1] for found in (open_.all.new, open_.all.kept) if found}
            open_.trim(now)
            assert not open_.crowded
            assert not any(found.dropped for found in last)  # who has come last never has to go
            for waiting in (open_.all.new, open_.all.kept):
                assert len(waiting) <= 3
                assert all(sum(one.address == name for one in waiting) <= 2 for name in "ab")
        else:
            visitor.dropped = False
            open_.wait(visitor, now, kept=step == "kept")
        inside = {*open_.all.new, *open_.all.kept, *open_.all.asking}
        assert not any(visitor.dropped for visitor in inside)
    for visitor in visitors:
        open_.leave(visitor)
    assert len(open_) == 0
    assert open_._of_address == {}


def test_an_address_takes_places_from_itself_before_it_does_from_others() -> None:
    open_ = Connections(8, 4)
    first, many = Visitor("a"), [Visitor("b") for _ in range(9)]
    for visitor in (first, *many):
        open_.wait(visitor, 1.0, kept=False)
    assert open_.trim(0.9) == 0  # they may still ask
    assert open_.crowded
    assert open_.trim(1.0) == 7
    assert [visitor.dropped for visitor in (first, *many)] == [False, *[True] * 7, False, False]


@pytest.mark.parametrize(
    ("client", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_what_counts_as_one_client(client: str, address: str) -> None:
    assert address_of((client, 1)) == address


def test_the_limit_on_open_files_is_raised_or_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, found: limits.append(found))
    with caplog.at_level(logging.WARNING, "blt.serve"):
        assert open_files(512) == 512
        assert connections_for(1024) == 1024
        assert limits == [(1024, 4096), (3328, 4096)]
        assert not caplog.records
        assert connections_for(10_000) == 1280
    assert limits[-1] == (4096, 4096)
    (record,) = caplog.records
    assert "ulimit -n" in record.getMessage()
    assert record.values["connections"] == 1280  # type: ignore[attr-defined]
