"""Who is connected, and who has to go when places are short."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from blt.serve.errors import APIError
from blt.serve.logs import warn

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

OTHER_FILES = 256  # that the process has open beside its connections


class Connected(Protocol):
    """What a connection is to this file."""

    address: str

    def drop(self) -> None:
        """End it now, without a word."""


class Places:
    """Connections under one limit: requests in progress, and as many that wait beside them.

    Half of those that wait may be new, half may have had an answer: neither takes places from the
    other.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.new: dict[Connected, float] = {}  # since when; longest first
        self.kept: dict[Connected, float] = {}  # likewise
        self.asking: set[Connected] = set()

    def __len__(self) -> int:
        return len(self.new) + len(self.kept) + len(self.asking)

    def remove(self, connection: Connected) -> None:
        self.asking.discard(connection)
        self.new.pop(connection, None)
        self.kept.pop(connection, None)

    def surplus(self) -> Iterator[tuple[Connected, float]]:
        """For whom there is no place, and since when they wait: those that have waited longest."""
        half = max(1, self.most // 2)
        for waiting in (self.new, self.kept):
            yield from islice(waiting.items(), max(0, len(waiting) - half))


class Connections:
    """All that are open, together and by address.

    Whoever has not asked yet holds a place only until it is needed: silence and half a header cost
    a client nothing, so they must not cost others theirs.
    """

    def __init__(self, most: int, per_address: int) -> None:
        self.all, self.per_address = Places(most), per_address
        self._of_address: dict[str, Places] = {}
        self._grown: dict[str, None] = {}  # addresses, since the last trim
        self.trim_is_due = False

    def __len__(self) -> int:
        return len(self.all)

    def _places(self, connection: Connected) -> Iterator[Places]:
        """Its address's first: a client takes places from itself before it does from others."""
        yield self._of_address.setdefault(connection.address, Places(self.per_address))
        yield self.all

    def wait(self, connection: Connected, now: float, *, kept: bool) -> None:
        """It is new, or has its answer and is kept; places may run over until :meth:`trim`."""
        for places in self._places(connection):
            places.remove(connection)
            (places.kept if kept else places.new)[connection] = now
        self._grown[connection.address] = None

    @property
    def full(self) -> bool:
        """Has so much come since the last trim that files may run out?"""
        return len(self.all.new) + len(self.all.kept) >= 2 * self.all.most

    def trim(self, before: float) -> int:
        """Drop those for whom there is no place, if they wait since then or longer; how many."""
        grown, dropped = self._grown, 0
        self._grown = {}
        for name in grown:
            if name in self._of_address:
                dropped += self._drop(self._of_address[name], before)
            if name in self._of_address and any(self._of_address[name].surplus()):
                self._grown[name] = None
        return dropped + self._drop(self.all, before)

    @property
    def crowded(self) -> bool:
        """Has somebody to go, later?"""
        return bool(self._grown) or any(self.all.surplus())

    def _drop(self, places: Places, before: float) -> int:
        going = [connection for connection, since in places.surplus() if since <= before]
        for connection in going:
            self.leave(connection)
            connection.drop()
        return len(going)

    def ask(self, connection: Connected) -> APIError | None:
        """Its request begins; the refusal if too many are in progress."""
        if connection not in self.all.new and connection not in self.all.kept:
            return None  # it has left
        own, everybody = self._places(connection)
        for places in (own, everybody):
            places.remove(connection)
            places.asking.add(connection)
        if len(own.asking) > own.most:
            message = (
                f"{own.most} requests of this address are in progress; blt serve "
                "--max-per-address says how many may be"
            )
            return APIError(429, message, code="address_busy")
        if len(everybody.asking) > everybody.most:
            message = f"{everybody.most} requests are in progress; try again later"
            return APIError(503, message, code="server_busy")
        return None

    def leave(self, connection: Connected) -> None:
        """It has ended, or is as good as that."""
        for places in self._places(connection):
            places.remove(connection)
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]


def address_of(client: tuple[str, int] | None) -> str:
    """What counts as one client: an IPv4 address, or a /64 of IPv6, which is one household."""
    if client is None:
        return ""
    found = ipaddress.ip_address(client[0].partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def open_files(wanted: int) -> int:
    """How many files the process may open; its own limit is raised to ``wanted`` if it can be."""
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    able = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (able, hard))
    except (OSError, ValueError):  # macOS has another limit behind this one
        return soft
    return able


def connections_for(wanted: int) -> int:
    """As many, or as the limit on open files lets there be; fewer than wanted are told."""
    needed = 3 * wanted + OTHER_FILES  # in progress, waiting, and come since the last trim
    files = open_files(needed)
    most = max(1, (files - OTHER_FILES) // 3)
    if most < wanted:
        message = "the limit on open files (ulimit -n) is too low for --max-connections"
        warn(message, limit=files, needed=needed, connections=most)
    return min(most, wanted)
