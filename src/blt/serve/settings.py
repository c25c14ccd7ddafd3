"""What a server is told at its start, and what it takes from one request at most.

These are the options of ``blt serve`` too: a field's docstring is its help there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_type_hints

from tyro.conf import Positional, Suppress, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

from blt.errors import require, require_number, require_whole

MEGABYTE = 2**20


def option(name: str) -> Any:
    """What a field is called on the command line, where that is not its own name."""
    return arg(name=name)


def _bytes_of(megabytes: int) -> int:
    """What is too small stays as it was given, for the message that refuses it."""
    return megabytes * MEGABYTE if megabytes > 0 else megabytes


IN_MEGABYTES: Any = PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT",
    instance_from_str=lambda words: _bytes_of(int(words[0])),
    is_instance=lambda value: value is None or isinstance(value, int),
    str_from_instance=lambda count: ["None" if count is None else str(count // MEGABYTE)],
)


@dataclass(frozen=True)
class Limits:
    """What one request may take; what is beyond is answered with 413 or 422."""

    body_bytes: Annotated[int, option("max-body")] = 2 * MEGABYTE
    """Bytes of an HTTP body."""
    body_seconds: Suppress[float] = 30.0
    """Seconds until all of a body has come."""
    prompt_bytes: Annotated[int, option("max-prompt")] = 32768
    """Bytes of a prompt, or of a text to score or cut."""
    max_bytes: int = 8192
    """Bytes that may be written for a choice."""
    choices: Annotated[int, option("max-choices")] = 64
    """Choices of one request."""
    timeout: float = 300.0
    """Seconds that a request may take."""
    header_seconds: Suppress[float] = 10.0
    """Seconds from the accept, or a header's first byte, to all of it."""
    idle_seconds: Suppress[float] = 75.0
    """Seconds from an answer to the next request; proxies keep 60."""
    unread_seconds: Suppress[float] = 30.0
    """Seconds in which nothing of an answer that waits is read."""

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Settings:
    """What the whole server is told."""

    model: Positional[str] = "pretrained"
    """Model folder, such as RUN/checkpoint; left out: the model inside the package."""
    adapter: str = ""
    """Folder of an adapter (LoRA) for that model; a run that trained one knows its model."""
    name: str = ""
    """Name of the model, for clients; left out: that of its folder."""
    max_batch: Annotated[int, option("batch")] = 16
    """How many texts are written at the same time."""
    max_queue: Annotated[int, option("queue")] = 256
    """How many may wait; more are told 429."""
    device: str = "auto"
    """Where the model works: auto (a GPU where there is one), cpu, cuda, or one of several, such
    as cuda:1."""
    memory_budget: Annotated[int | None, option("memory-mb"), IN_MEGABYTES] = None
    """Megabytes for caches of texts. Left out: 0.8 of what a GPU has free beside the weights; on a
    CPU 4096, or half of its memory."""
    precision: Literal["float32", "bfloat16", "int8"] | None = None
    """Precision of the weights: float32, bfloat16 or int8 (on a CPU). Left out: bfloat16 on a GPU
    that has it, else as the model is."""
    draft_bytes: int = 0
    """Self-speculation, where a request says nothing."""
    threshold: float | None = None
    """Cut patches with this θ (nats) instead of the model's own; higher makes longer patches."""
    target_patch_size: float | None = None
    """The same with the θ for which patches have so many bytes in the text of --calibrate-on."""
    calibrate_on: str = ""
    """Text like that which will be asked for, to find θ on."""
    template: str = ""
    """File of a chat template instead of that in the model's folder, or "default"."""
    keys: str = ""
    """File with one API key per line, read again when it changes; left out: everybody is
    served."""
    host: Suppress[str] = ""
    """Address that it listens on."""
    allowed_hosts: Annotated[UseAppendAction[tuple[str, ...]], option("allowed-host")] = ()
    """A name that requests may call this server by, such as blt.example; may be given several
    times, * for any. Left out: with --keys any, else localhost, addresses and --host."""
    cors_origins: Annotated[UseAppendAction[tuple[str, ...]], option("cors-origin")] = ()
    """A web site whose scripts may call, such as https://site.example; may be given several
    times."""
    max_connections: int = 1024
    """Requests in progress; as many connections may wait beside them."""
    max_per_address: int = 512
    """As many of these from one address; behind a proxy all have the proxy's."""
    drain_seconds: Annotated[float, option("drain")] = 60.0
    """Seconds that accepted requests get after SIGTERM."""
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
    for name, kind in get_type_hints(type(of)).items():
        value = getattr(of, name)
        if kind in (int, int | None) and value is not None:
            require_whole(name, value, 0 if name == "draft_bytes" else 1)
        elif kind is float:
            require_number(name, value)
            require(value > 0, f"{name} must be positive, got {value}")
