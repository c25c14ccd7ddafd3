"""What ``serve --chaos`` does beside requests: connections that only hold a place."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp

IDLE, SLOW = 2000, 1100  # connections that say nothing, and that send a header's bytes one by one
FROM = "127.0.0.2"  # another address than that of clients who ask
BYTE_EVERY = 3.0  # seconds
AGAIN_AFTER = 10.0  # a place that the server has closed is taken again
OPEN_WITHIN = 5.0  # all at once would keep the clients here from asking once they have connected
HEALTH_EVERY = 0.5
HEALTH_SECONDS = 5.0  # without an answer for so long, a check has failed
HEADER = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 4000


@dataclass
class Held:
    """What became of them, and of health checks meanwhile."""

    opened: dict[str, int] = field(default_factory=lambda: {"idle": 0, "slow": 0})
    closed: dict[str, int] = field(default_factory=lambda: {"idle": 0, "slow": 0})  # by the server
    most_open: int = 0
    health_checks: int = 0
    health_failed: int = 0
    health_slowest: float = 0.0  # seconds
    now_open: int = 0


async def hold(url: str, stop: float, held: Held) -> None:
    """Hold connections and ask for health until ``stop`` (monotonic seconds)."""
    tasks = [
        *(asyncio.create_task(_connection(url, "idle", stop, held)) for _ in range(IDLE)),
        *(asyncio.create_task(_connection(url, "slow", stop, held)) for _ in range(SLOW)),
        asyncio.create_task(_health(url, stop, held)),
    ]
    await asyncio.sleep(max(0.0, stop - time.monotonic()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _connection(url: str, kind: str, stop: float, held: Held) -> None:
    """One place: taken again whenever the server has closed it."""
    address = urlsplit(url)
    await asyncio.sleep(random.uniform(0.0, OPEN_WITHIN))
    while time.monotonic() < stop:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(
                address.hostname, address.port, local_addr=(FROM, 0)
            )
            held.opened[kind] += 1
            held.now_open += 1
            held.most_open = max(held.most_open, held.now_open)
            try:
                await _until_closed(reader, writer, kind)
                held.closed[kind] += 1
            finally:
                held.now_open -= 1
                writer.close()
        await asyncio.sleep(AGAIN_AFTER)


async def _until_closed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str
) -> None:
    sent = 0
    while True:
        if kind == "slow":
            writer.write(HEADER[sent : sent + 1])
            sent += 1
        with suppress(TimeoutError):
            async with asyncio.timeout(BYTE_EVERY):
                if not await reader.read(1000):
                    return


async def _health(url: str, stop: float, held: Held) -> None:
    timeout = aiohttp.ClientTimeout(total=HEALTH_SECONDS)
    while time.monotonic() < stop:
        begun, ok = time.monotonic(), False
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            # A new connection each time, as load balancers make them.
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{url}/healthz") as answer,
            ):
                ok = answer.status == 200
        held.health_checks += 1
        held.health_failed += not ok
        held.health_slowest = max(held.health_slowest, time.monotonic() - begun)
        await asyncio.sleep(HEALTH_EVERY)
