"""Clients of a server: most behave; with chaos, some leave, dawdle or talk nonsense."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from benchmarks.serve_chaos import Held, hold
from benchmarks.serve_texts import COUNT, Texts

if TYPE_CHECKING:
    from benchmarks.serve import Load

ANSWER_SECONDS = 120.0  # without an answer for so long, a request counts as lost
# What of a hundred requests is no ordinary stream or whole answer, with chaos.
CHAOS = {"cancel": 10, "slow": 5, "oversized": 3, "malformed": 4, "raw": 3}
LONG_EVERY = 15.0  # seconds between prompts of one letter, whose clients leave
LONG_BYTES, LONG_SECONDS = 16384, 5.0
MALFORMED = (
    b"{",
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": 1}',
    b'{"prompt": "x", "temperature": NaN}',
    b'{"prompt": "x", "n": 1e999}',
    b'{"prompt": "x", "max_tokens": -1}',
    b"[" * 5000,
    b"\x00" * 100,
)
RAW = (
    b"GET /page/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100000 + b"\r\n\r\n",
    b"NONSENSE\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
)


@dataclass
class Outcome:
    """What clients saw, since :meth:`restart`."""

    requests: Counter[str] = field(default_factory=Counter)
    first_byte: list[float] = field(default_factory=list)  # seconds
    gaps: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    long_prompts: int = 0  # in flight; gaps between chunks are kept apart by whether there are any
    held: Held = field(default_factory=Held)
    compared: int = 0
    wrong: int = 0
    unanswered: int = 0
    unexpected: list[str] = field(default_factory=list)

    def restart(self) -> None:
        """Forget times; mistakes are never forgotten."""
        self.first_byte = []
        self.gaps = {False: [], True: []}

    def compare(self, text: str, expected: bytes) -> None:
        """With what the engine alone writes; bytes that are not UTF-8 are U+FFFD in both."""
        self.compared += 1
        self.wrong += text != expected.decode("utf-8", "replace")

    def to_json(self) -> dict[str, Any]:
        return {
            "first_byte_seconds": _percentiles(self.first_byte),
            "gap_seconds": {
                "usual": _percentiles(self.gaps[False]),
                "beside_long_prompts": _percentiles(self.gaps[True]),
            },
            "held": asdict(self.held),
            "requests": dict(self.requests),
            "compared": self.compared,
            "wrong": self.wrong,
            "unanswered": self.unanswered,
            "unexpected": self.unexpected[:20],
        }


class Client:
    """One client, one request after another."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        texts: Texts,
        expected: list[bytes],
        outcome: Outcome,
    ) -> None:
        self.session, self.url, self.texts = session, url, texts
        self.expected, self.outcome = expected, outcome

    def body(self, index: int, **more: Any) -> dict[str, Any]:
        sampling = self.texts.samplings[index]
        prompt = self.texts.prompts[index]
        return {"prompt": prompt, "ignore_eos": True, **sampling, **more}

    async def stream(self, chance: random.Random, pause: float = 0.0) -> None:
        """A stream, read to its end; with a pause between reads."""
        index, text, begun = chance.randrange(COUNT), "", time.monotonic()
        last: float | None = None
        async with self.session.post(self.url, json=self.body(index, stream=True)) as answer:
            if not self._expect(answer.status, 200):
                return
            ended = False
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    if not text:
                        self.outcome.first_byte.append(time.monotonic() - begun)
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        self.outcome.unexpected.append(chunk["error"]["message"])
                        break
                    text += chunk["choices"][0]["text"]
                    now = time.monotonic()
                    if last is not None and not pause:
                        self.outcome.gaps[self.outcome.long_prompts > 0].append(now - last)
                    last = now
                ended |= line.startswith(b"data: [DONE]")
                if pause:
                    await asyncio.sleep(pause)
        if ended:
            self.outcome.compare(text, self.expected[index])
        else:
            self.outcome.unanswered += 1

    async def slow(self, chance: random.Random) -> None:
        await self.stream(chance, pause=0.2)

    async def whole(self, chance: random.Random) -> None:
        """An answer in one piece."""
        index = chance.randrange(COUNT)
        async with self.session.post(self.url, json=self.body(index)) as answer:
            if not self._expect(answer.status, 200):
                return
            choice = (await answer.json())["choices"][0]
        self.outcome.compare(choice["text"], self.expected[index])

    async def cancel(self, chance: random.Random) -> None:
        """Leave after a while, in the middle of an answer or before it."""
        index, stream = chance.randrange(COUNT), chance.random() < 0.5
        body = self.body(index, stream=stream)
        try:
            async with asyncio.timeout(chance.uniform(0.01, 2.0)):
                async with self.session.post(self.url, json=body) as answer:
                    await answer.read()
        except TimeoutError:
            return

    async def long(self) -> None:
        """A long prompt of one letter; nobody waits for its end."""
        self.outcome.requests["long"] += 1
        self.outcome.long_prompts += 1
        try:
            async with asyncio.timeout(LONG_SECONDS):
                body = {"prompt": "a" * LONG_BYTES, "max_tokens": 9}
                async with self.session.post(self.url, json=body) as answer:
                    await answer.read()
        except (TimeoutError, aiohttp.ClientError):
            return
        finally:
            self.outcome.long_prompts -= 1

    async def oversized(self, chance: random.Random) -> None:
        """More than fits, in the body or in the parameters."""
        bodies = (
            {"prompt": "x" * 2**20},
            {"prompt": "x", "max_tokens": 10**9},
            {"prompt": ["x"] * 5000},
        )
        async with self.session.post(self.url, json=chance.choice(bodies)) as answer:
            self._expect(answer.status, 413, 422)
            await answer.read()

    async def malformed(self, chance: random.Random) -> None:
        """No JSON, or not what it should say."""
        headers = {"Content-Type": "application/json"}
        data = chance.choice(MALFORMED)
        async with self.session.post(self.url, data=data, headers=headers) as answer:
            self._expect(answer.status, 400, 422)
            await answer.read()

    async def raw(self, chance: random.Random) -> None:
        """Not quite HTTP."""
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(chance.choice(RAW))
            status = (await reader.readline()).split(b" ")
            self._expect(int(status[1]) if len(status) > 1 else 0, *range(400, 500))
        finally:
            writer.close()

    def _expect(self, status: int, *expected: int) -> bool:
        if status not in expected:
            self.outcome.unexpected.append(f"{status}, not {' or '.join(map(str, expected[:3]))}")
        return status in expected


async def drive(
    url: str, load: Load, texts: Texts, expected: list[bytes], stop: float, outcome: Outcome
) -> None:
    """All clients, until ``stop`` (monotonic seconds); what has begun is read to its end."""
    kinds = {"stream": 75, "whole": 25} if not load.chaos else {"stream": 60, "whole": 15, **CHAOS}
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def one(seed: int) -> None:
            chance = random.Random(seed)
            client = Client(session, f"{url}/v1/completions", texts, expected, outcome)
            while time.monotonic() < stop:
                (kind,) = chance.choices(list(kinds), list(kinds.values()))
                outcome.requests[kind] += 1
                try:
                    await getattr(client, kind)(chance)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    # A refused upload may be cut off before its answer is read.
                    if kind not in ("oversized", "raw"):
                        outcome.unanswered += 1
                        outcome.unexpected.append(f"{kind}: {type(error).__name__}: {error}")
                    else:
                        outcome.requests[f"{kind}, cut off"] += 1

        async def long_prompts() -> None:
            client = Client(session, f"{url}/v1/completions", texts, expected, outcome)
            while time.monotonic() + LONG_EVERY < stop:
                await asyncio.sleep(LONG_EVERY)
                await client.long()

        beside = [hold(url, stop, outcome.held), long_prompts()] if load.chaos else []
        await asyncio.gather(*(one(seed) for seed in range(load.clients)), *beside)


def _percentiles(seconds: list[float]) -> dict[str, float]:
    times = sorted(seconds) or [0.0]
    return {"p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}
