"""A real server on loopback, in a thread, with random weights."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import openai

import blt
from blt.serve.app import create_app
from blt.serve.run import listen, make_server
from blt.serve.service import Service
from blt.serve.settings import Settings
from shapes import random_blt


@dataclass
class Served:
    """A running server."""

    url: str
    service: Service
    lm: blt.BLT

    def client(self, **options: object) -> openai.OpenAI:
        settings = {"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0, **options}
        return openai.OpenAI(**settings)  # type: ignore[arg-type]

    def post(self, path: str, body: object, **options: object) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60, **options)  # type: ignore[arg-type]

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(name + " ")))

    def becomes_idle(self) -> bool:
        """Does the engine get rid of all it has to write?"""
        return wait_until(lambda: self.metric("blt_running") + self.metric("blt_waiting") == 0)


def wait_until(holds: object, seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


@contextmanager
def serving(settings: Settings, lm: blt.BLT | None = None) -> Iterator[Served]:
    lm = random_blt() if lm is None else lm
    app = create_app(lm, settings)
    server = make_server(app, settings.drain_seconds)
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert wait_until(lambda: server.started)
        yield Served(url, app.state.service, lm)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


def address(served: Served) -> tuple[str, int]:
    """Host and port to connect to."""
    return "127.0.0.1", int(served.url.rsplit(":", 1)[1])


def raw_status(served: Served, request: str | bytes) -> int:
    """The status of the answer to a request sent as it is; 0: there was no answer."""
    data = request.encode() if isinstance(request, str) else request
    with socket.create_connection(address(served), timeout=20) as raw:
        raw.sendall(data + b"\r\nConnection: close\r\n\r\n")
        found = re.match(rb"HTTP/1.1 (\d+) ", raw.recv(1000))
    return int(found[1]) if found else 0
