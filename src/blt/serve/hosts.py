"""What requests may call this server, and which web sites may have it do something.

A page of another site can have its own name lead to this machine (DNS rebinding): the browser then
takes this server for that site, and lets its scripts read everything. Only the Host header tells.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from blt.serve.errors import APIError
from blt.serve.settings import Settings

HOST = re.compile(r"(\[[^\[\]]+\]|[^:/?#@\s\[\]]+)(:\d*)?")
READ_ONLY = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Hosts:
    """The names that one server answers to, and the web sites that may call it."""

    names: frozenset[str]
    any_name: bool
    origins: tuple[str, ...]  # of other sites that may call

    @classmethod
    def of(cls, settings: Settings) -> Hosts:
        """With keys any name will do, unless some are given: a foreign page has no key."""
        given = settings.allowed_hosts
        any_name = "*" in given or bool(settings.keys and not given)
        names = frozenset(_name(host) for host in (settings.host, *given))
        return cls(names, any_name, settings.cors_origins)

    def refusal(self, method: str, headers: Headers) -> APIError | None:
        """Why a request with these headers is refused; None: it is not."""
        host, origin = headers.get("host"), headers.get("origin")
        if host is not None and not self.knows(host):  # HTTP/1.0 has none, and no browser
            message = (
                f"this server is not called {host[:100]!r}; if that is its name, start it with "
                "--allowed-host NAME (on Ray allowed_hosts)"
            )
            return APIError(421, message, code="unknown_host")
        if origin is None or method in READ_ONLY or {origin, "*"} & {*self.origins}:
            return None
        if origin.partition("://")[2] == (host or "").lower():  # of the page that is served here
            return None
        message = (
            f"pages of {origin[:100]!r} may not call this server; start it with "
            f"--cors-origin {origin[:100]}, or, if that is its own page behind a proxy, have the "
            "proxy pass the Host header on"
        )
        return APIError(403, message, code="foreign_origin")

    def knows(self, host: str) -> bool:
        """Is this Host header one of ours? An address is: it leads nowhere else, a name may."""
        if self.any_name:
            return True
        parts = HOST.fullmatch(host)
        name = _name(parts[1]) if parts else ""
        local = name == "localhost" or name.endswith(".localhost")
        return bool(name) and (local or name in self.names or _is_address(name))


def _name(host: str) -> str:
    return host.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
