"""Completions and chats: whole answers and streams, for as long as the client is there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from blt.generate import Handle
from blt.generate.request import Piece
from blt.serve.asked import Asked
from blt.serve.errors import APIError
from blt.serve.forms import Form
from blt.serve.service import Service
from blt.serve.writing import REASONS, Writer

T = TypeVar("T")
LAST_WORD_SECONDS = 5.0  # to tell a client why its stream ends


class ClientLeftError(Exception):
    """Nobody is there to take the answer."""


async def while_connected(receive: Receive, seconds: float, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when the client leaves or time is up.

    Raises:
        ClientLeftError: it has left.
        APIError: 504, not finished after ``seconds``.
    """
    gone = asyncio.ensure_future(_until_gone(receive))
    doing = asyncio.ensure_future(work)
    try:
        await asyncio.wait({gone, doing}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if gone.done():
            raise ClientLeftError
        raise APIError(504, f"not finished after {seconds:g} seconds", code="timeout")
    finally:
        gone.cancel()
        doing.cancel()
        await asyncio.gather(gone, doing, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Job:
    """One request for completions or chats, which differ in their form alone."""

    def __init__(self, service: Service, asked: Asked, form: Form, http: Request) -> None:
        self.service, self.asked, self.form, self.http = service, asked, form, http
        request = asked.request
        self.begun = time.monotonic()
        self.noted: dict[str, Any] = http.scope["blt"]  # goes into the log
        drafts = service.drafts if request.draft_bytes is None else request.draft_bytes
        count = len(asked.prompts) * asked.n
        self.writers = [form.writer(index, asked, drafts > 0) for index in range(count)]
        self.handles: list[Handle] = []
        self.prompts: list[Piece] = []
        self.queued, self.others = 0.0, 0  # when, and how many choices were there already
        self.head: dict[str, Any] = {
            "id": self.noted["id"],
            "created": int(time.time()),
            "model": service.name,
        }

    @property
    def seconds_left(self) -> float:
        """Until the deadline of the whole request."""
        return max(0.0, self.service.limits.timeout - (time.monotonic() - self.begun))

    async def start(self) -> None:
        """Read what is to be echoed, and queue all choices: after this nothing is refused."""
        self.prompts = await self.service.read_prompts(self.asked)
        engine = self.service.engine
        self.queued, self.others = time.monotonic(), engine.running + engine.waiting
        self.handles = self.service.submit(self.asked)
        if not self.asked.echo:
            for writer, handle in zip(self.writers, self.handles, strict=True):
                writer.goes_on(handle.begun)

    def close(self) -> None:
        """Free the engine of what has not ended, and count what was written."""
        for handle in self.handles:
            handle.cancel()
        self.service.count(self.asked, self.handles)

    async def whole(self) -> BaseModel:
        """All choices, once all have ended."""
        await self.start()
        found: dict[int, Piece] = {}
        async with aclosing(self.service.bridge.pieces(self.handles, every_byte=False)) as pieces:
            async for index, piece in pieces:
                self._check(index, piece)
                found[index] = piece
        parts = [
            writer.write(*self._echo(writer.index), found[writer.index]) for writer in self.writers
        ]
        return self.form.whole(self.head, parts, self._usage())

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events, the last one [DONE]."""
        for writer in self.writers:
            if opening := self.form.first(self.head, writer.index):
                yield event(opening)
            if echo := self._echo(writer.index):
                yield self._chunk(writer, *echo)
        first = True
        async with aclosing(self.service.bridge.pieces(self.handles)) as pieces:
            async for index, piece in pieces:
                self._check(index, piece)
                if first:
                    self.service.metrics.first_byte.observe(time.monotonic() - self.begun)
                    first = False
                if chunk := self._chunk(self.writers[index], piece):
                    yield chunk
        usage = self._usage()
        options = self.asked.request.stream_options
        if options and options.include_usage:
            yield event(self.form.last(self.head, usage))
        yield b"data: [DONE]\n\n"

    def _chunk(self, writer: Writer, *pieces: Piece) -> bytes:
        """An event; nothing while a character is incomplete and only text is wanted."""
        part = writer.write(*pieces)
        return b"" if part.is_empty else event(self.form.chunk(self.head, part))

    def _echo(self, index: int) -> list[Piece]:
        return [self.prompts[index // self.asked.n]] if self.asked.echo else []

    def _check(self, index: int, piece: Piece) -> None:
        """Note that a text has ended.

        Raises:
            APIError: 503, it did not end by itself.
        """
        if piece.finish_reason in REASONS and self.asked.request.most_bytes != 0:
            self.service.pace.ended(time.monotonic() - self.queued, self.others + index)
        if piece.finish_reason in ("error", "cancelled"):
            reason = self.handles[index].result().error or "the server is shutting down"
            raise APIError(503, reason, code="engine_failed")

    def _usage(self) -> Any:
        usage = self.service.usage(self.asked, self.prompts, self.handles)
        self.noted.update(usage.model_dump())
        return usage


def event(data: str) -> bytes:
    return b"data: " + data.encode() + b"\n\n"


class EventStream(Response):
    """A stream that ends when all is said, the client leaves, or time is up."""

    media_type = "text/event-stream"

    def __init__(self, job: Job) -> None:
        self.job = job
        # No proxy may hold events back.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)

        async def body(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def all_events() -> None:
            async with aclosing(self.job.events()) as events:
                async for data in events:
                    await body(data)

        try:
            await while_connected(receive, self.job.seconds_left, all_events())
            await body(b"", more=False)
        except ClientLeftError:
            self.job.service.metrics.left.inc()
        except APIError as error:  # too late for a status
            with suppress(TimeoutError):  # of a client that reads nothing
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    await body(event(json.dumps(error.body())))
                    await body(b"", more=False)
        finally:
            self.job.close()


async def complete(service: Service, asked: Asked, form: Form, http: Request) -> Any:
    """Answer ``/v1/completions`` or ``/v1/chat/completions``.

    Raises:
        ClientLeftError: before there was anything to answer with.
        APIError: 504, not finished in time; 429 and 503, the engine takes no more.
    """
    job = Job(service, asked, form, http)
    stream = bool(asked.request.stream)
    work = job.start() if stream else job.whole()
    streaming = False
    try:
        answer = await while_connected(http.receive, job.seconds_left, work)
        streaming = stream
    finally:
        if not streaming:
            job.close()
    return EventStream(job) if streaming else answer
