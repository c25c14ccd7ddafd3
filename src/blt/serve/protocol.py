"""One connection: uvicorn's HTTP, with a limit on everything that a client can be slow at."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from blt.serve.connections import Connections, address_of
from blt.serve.errors import APIError
from blt.serve.guard import HEADER_BYTES, HEADERS_TOO_LARGE
from blt.serve.metrics import Metrics
from blt.serve.settings import Limits

# In which a connection for which there is no place may still ask: many that come at once are all
# accepted before any is read, and a busy client may take a while from connecting to asking.
GRACE_SECONDS = 1.0


class Connection(H11Protocol):
    """Between requests it waits for a header and may be dropped; a request has limits of its own.

    There is one timer. It runs from the accept, or from a header's first byte, to the whole header;
    from an answer to the next header's first byte; and where an answer waits for its reader.
    """

    address = ""

    def __init__(
        self, *, connections: Connections, limits: Limits, metrics: Metrics, **others: Any
    ) -> None:
        super().__init__(**others)
        self.open, self.limits, self.metrics = connections, limits, metrics
        self.answering, self.app = self.app, self._answer
        self._timer: asyncio.TimerHandle | None = None
        self._silent = False  # since its last answer
        self._unsent, self._read_until = 0, 0.0  # bytes as the timer began; time of the loop

    # --- what happens ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = address_of(self.client)
        self._wait(self.limits.header_seconds, kept=False)

    def data_received(self, data: bytes) -> None:
        if self._silent:
            self._silent = False
            self._allow(self.limits.header_seconds)
        super().data_received(data)
        if self.transport.is_closing():
            self._allow(self.limits.unread_seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, told of a refusal if there is no place for this request."""
        self._stop_timer()
        if self.flow.write_paused:  # by an answer before
            self._allow(self.limits.unread_seconds)
        self._read_until = self.loop.time() + self.limits.timeout
        scope["state"]["refusal"] = self.open.ask(self)
        try:
            await self.answering(scope, receive, send)  # type: ignore[arg-type]
        finally:
            if not self.cycle.response_complete:  # uvicorn hangs up, once all is sent
                self._allow(self.limits.unread_seconds)

    def on_response_complete(self) -> None:
        self._read_until = self.loop.time() + self.limits.timeout
        self._silent = True
        closing = self.transport.is_closing()
        seconds = self.limits.unread_seconds if closing else self.limits.idle_seconds
        self._wait(seconds, kept=not closing)
        super().on_response_complete()
        self._unset_keepalive_if_required()  # ours looks at more than silence

    def pause_writing(self) -> None:
        super().pause_writing()
        self._allow(self.limits.unread_seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.cycle.response_complete:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.open.leave(self)
        super().connection_lost(exc)
        self.app = self.answering  # or it would hold itself, until rubbish is collected

    # --- limits ---

    def _wait(self, seconds: float, *, kept: bool) -> None:
        self._allow(seconds)
        self.open.wait(self, self.loop.time(), kept=kept)
        if self.open.full:
            self._trim(0.0)
        self._trim_later()

    def _trim_later(self) -> None:
        if not self.open.trim_is_due:
            self.open.trim_is_due = True
            self.loop.call_later(GRACE_SECONDS, self._trim_now)

    def _trim_now(self) -> None:
        self.open.trim_is_due = False
        self._trim(GRACE_SECONDS)
        if self.open.crowded:
            self._trim_later()

    def _trim(self, grace: float) -> None:
        dropped = self.open.trim(self.loop.time() - grace)
        if dropped:
            self.metrics.dropped.labels("places").inc(dropped)

    def _allow(self, seconds: float) -> None:
        self._stop_timer()
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent or not self.transport.is_closing():
            self._timer = self.loop.call_later(seconds, self._too_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            if unsent != self._unsent and self.loop.time() < self._read_until:
                self._allow(self.limits.unread_seconds)  # it reads, if slowly
                return
            self.metrics.dropped.labels("unread").inc()
            self.drop()
        elif self._silent:
            self.transport.close()
        else:
            self.metrics.dropped.labels("header").inc()
            self._end(408, f"no whole header within {self.limits.header_seconds:g} seconds")

    def drop(self) -> None:
        """Now, whatever has not been read."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's, as an error object; it is called too where a header does not end."""
        if len(self.conn.trailing_data[0]) > HEADER_BYTES:
            self._end(431, HEADERS_TOO_LARGE)
        else:
            self._end(400, msg)

    def _end(self, status: int, message: str) -> None:
        """Hang up; whoever has begun to say something is told why."""
        if self.conn.our_state is h11.IDLE and (status != 408 or self.conn.trailing_data[0]):
            answer = APIError(status, message).response()
            headers = [*answer.raw_headers, (b"connection", b"close")]
            head = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
