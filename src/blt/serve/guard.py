"""What every request passes before a route sees it: host, key, drain, body; and its notes."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blt.serve.errors import APIError, unexpected
from blt.serve.hosts import Hosts
from blt.serve.keys import Keys
from blt.serve.logs import log
from blt.serve.metrics import Metrics
from blt.serve.settings import Limits

KINDS = {"/v1/completions": "cmpl", "/v1/chat/completions": "chatcmpl"}  # beginnings of ids
HEALTH = "/healthz"
OPEN = ("/", HEALTH, "/openapi.json")  # need no key, as do the page's own files
HEADER_BYTES = 32768  # of a request; h11 refuses only what does not come in one piece
HEADERS_TOO_LARGE = f"headers may have {HEADER_BYTES} bytes in all"
# With no referrer at all, some browsers would call the page's own origin null.
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}


class Door:
    """Whether requests are let in, and how many are inside."""

    def __init__(self) -> None:
        self.inside = 0
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def enter(self) -> None:
        self.inside += 1
        self._empty.clear()

    def leave(self) -> None:
        self.inside -= 1
        if self.inside == 0:
            self._empty.set()

    async def drain(self, seconds: float) -> bool:
        """Let nobody in any more; False if somebody is still inside after so many seconds."""
        self.draining = True
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return False
        return True


class Guard:
    """ASGI middleware; the outermost but for CORS."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        hosts: Hosts,
        door: Door,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self.app, self.keys, self.hosts, self.door = app, keys, hosts, door
        self.metrics, self.limits = metrics, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)  # lifespan; websockets find no route
            return
        begun, status = time.monotonic(), 0
        body = _Body(receive, self.limits)
        kind = KINDS.get(scope["path"], "req")  # an answer's id is this
        scope["blt"] = noted = {"id": f"{kind}-{secrets.token_hex(12)}"}

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "X-Request-Id": noted["id"]})
                if status >= 400 and body.coming(scope):
                    headers["Connection"] = "close"  # or the rest would still be read
            await send(message)

        self.door.enter()
        try:
            await self._admit(scope, body, answer)
        except Exception as error:
            if status:  # it is too late for another answer
                raise
            await unexpected(error).response()(scope, receive, answer)
        finally:
            self.door.leave()
            self._note(scope, status, time.monotonic() - begun)

    async def _admit(self, scope: Scope, body: _Body, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, body.receive, send)
        else:
            await refusal.response()(scope, body.receive, send)

    def _refusal(self, scope: Scope) -> APIError | None:
        headers, path = Headers(scope=scope), scope["path"]
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
            return APIError(431, HEADERS_TOO_LARGE)
        if path == HEALTH:  # says the same to everybody, and always
            return None
        crowded: APIError | None = scope.get("state", {}).get("refusal")  # Connection's
        refusal = crowded or self.hosts.refusal(scope["method"], headers)
        if refusal is None and not _is_open(path) and self.keys.wanted:
            given = headers.get("authorization", "").encode("latin-1")
            if not self.keys.accept(given):
                refusal = APIError(401, "a wrong or missing API key", code="invalid_api_key")
        if refusal is None and self.door.draining and path.startswith("/v1/"):
            refusal = APIError(503, "the server is shutting down", code="draining")
        if refusal is None and scope["method"] == "POST":
            refusal = self._refuse_body(headers)
        return refusal

    def _refuse_body(self, headers: Headers) -> APIError | None:
        if headers.get("content-encoding", "identity").lower() != "identity":
            return APIError(415, "compressed bodies are not read; send it as it is")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return APIError(415, "the body must be application/json; say so in Content-Type")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.limits.body_bytes:
            return APIError(413, _too_large(self.limits))
        return None

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Path as the route has it: what a client made up stays out of logs and metrics."""
        path = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        if path not in (HEALTH, "/metrics"):
            log("request", method=scope["method"][:8], path=path, status=status,
                seconds=round(seconds, 4), **scope["blt"])  # fmt: skip


class _Body:
    """A body that may be neither too large nor too slow."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._read, self._whole = 0, False
        self._until = time.monotonic() + limits.body_seconds

    def coming(self, scope: Scope) -> bool:
        """Is there more of it than was read?"""
        headers = Headers(scope=scope)
        return not self._whole and ("content-length" in headers or "transfer-encoding" in headers)

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # waits until the client leaves
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                message: Any = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "the body did not come in time") from None
        self._read += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._read > self._limits.body_bytes:
            raise HTTPException(413, _too_large(self._limits))
        return message  # type: ignore[no-any-return]


def _too_large(limits: Limits) -> str:
    return f"the body is larger than {limits.body_bytes} bytes"


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/page/")
