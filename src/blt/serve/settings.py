"""What a server is told at its start, and what it takes from one request at most."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from blt.checkpoint.pretrained import PRETRAINED
from blt.errors import require, require_number, require_whole
from blt.generate.weights import Precision


@dataclass(frozen=True)
class Limits:
    """Of one request; what is beyond is answered with 413 or 422."""

    body_bytes: int = 2 * 2**20  # of HTTP
    body_seconds: float = 30.0  # until all of it has come
    prompt_bytes: int = 32768  # of each prompt, and of texts to score or cut
    max_bytes: int = 8192  # to write, for each choice
    choices: int = 64  # prompts times n
    timeout: float = 300.0  # from the first byte of the request to the last of the answer
    header_seconds: float = 10.0  # from the accept, or a header's first byte, to all of it
    idle_seconds: float = 75.0  # from an answer to the next request; proxies keep 60
    unread_seconds: float = 30.0  # in which nothing of an answer that waits is read

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Settings:
    """Of the whole server."""

    model: str = PRETRAINED  # folder
    name: str = ""  # of the model, for clients; left out: that of its folder
    max_batch: int = 16  # texts that are written at the same time
    max_queue: int = 256  # choices that may wait
    memory_budget: int = 4 * 2**30  # bytes of caches
    precision: Precision | None = None
    draft_bytes: int = 0  # self-speculation, where a request says nothing
    keys: str = ""  # file with one API key per line
    host: str = ""  # that it listens on
    allowed_hosts: tuple[str, ...] = ()  # what requests may call it besides, or * for anything
    cors_origins: tuple[str, ...] = ()  # https://site.example, or * for all
    max_connections: int = 1024  # requests in progress, and as many connections beside them
    max_per_address: int = 512  # of these, from one address
    drain_seconds: float = 60.0  # that accepted requests get after SIGTERM
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _check(self)
        for origin in self.cors_origins:
            require_origin("cors_origins", origin)
        for host in self.allowed_hosts:
            require_host("allowed_hosts", host)


def require_origin(name: str, origin: str) -> None:
    """An origin as browsers send it, or ``*``; another would never match, without a word."""
    require(
        origin == "*" or re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+", origin) is not None,
        f"{name}: {origin!r} is no origin; give one such as https://site.example or "
        "http://localhost:3000: scheme, host and port, in lower case, without a path",
    )


def require_host(name: str, host: str) -> None:
    """A host as the Host header has it, without its port, or ``*``."""
    require(
        host == "*" or re.fullmatch(r"[^:/?#@*\sA-Z\[\]]+|\[[0-9a-f:.]+\]", host) is not None,
        f"{name}: {host!r} is no host; give a name such as blt.example or an address such as "
        "192.0.2.7 or [2001:db8::7], in lower case, without scheme, port and path",
    )


def _check(of: Any) -> None:
    """Numbers of fields are positive (``draft_bytes`` may be 0)."""
    for entry in fields(of):
        value = getattr(of, entry.name)
        if entry.type == "int":
            require_whole(entry.name, value, 0 if entry.name == "draft_bytes" else 1)
        elif entry.type == "float":
            require_number(entry.name, value)
            require(value > 0, f"{entry.name} must be positive, got {value}")
