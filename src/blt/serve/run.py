"""``blt serve``: the app under uvicorn, from the first request to a graceful end."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from dataclasses import replace
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from blt.errors import UserError
from blt.machine.precision import choose_device
from blt.serve import logs
from blt.serve.app import create_app
from blt.serve.connections import Connections, connections_for
from blt.serve.guard import HEADER_BYTES, Door
from blt.serve.keys import others_can_read
from blt.serve.model import model_of
from blt.serve.protocol import Connection
from blt.serve.service import Service
from blt.serve.settings import Settings

BACKLOG = 2048  # connections that the system holds until they are accepted


class Server(uvicorn.Server):
    """On SIGTERM or Ctrl-C it lets what was accepted finish; on a second one it ends at once."""

    def __init__(self, config: uvicorn.Config, door: Door, drain_seconds: float) -> None:
        super().__init__(config)
        self.door, self.drain_seconds = door, drain_seconds
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is not None or not self.started:
            self.should_exit = self.force_exit = True
            return
        # Signals come between two bytecodes of the loop's own thread.
        self._draining = asyncio.get_running_loop().create_task(self.drain())

    async def drain(self) -> None:
        """Refuse with 503 what is new, and end once nothing old is left."""
        logs.log("draining", inside=self.door.inside)
        finished = await self.door.drain(self.drain_seconds)
        logs.log("drained", finished=finished, left=self.door.inside)
        self.should_exit, self.force_exit = True, not finished


def make_server(app: FastAPI, drain_seconds: float) -> Server:
    """A uvicorn server with our limits."""
    service: Service = app.state.service
    settings, metrics = service.settings, service.metrics
    most = connections_for(settings.max_connections)
    connections = Connections(most, settings.max_per_address)
    metrics.gauge("connections", "Open connections", lambda: len(connections))
    limited = partial(Connection, connections=connections, limits=settings.limits, metrics=metrics)
    config = uvicorn.Config(
        app,
        http=limited,  # type: ignore[arg-type]  # h11 refuses what is not quite HTTP
        h11_max_incomplete_event_size=HEADER_BYTES,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=5,
    )
    return Server(config, app.state.door, drain_seconds)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on, though nobody answers yet.

    Raises:
        UserError: it cannot be.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        listener.close()
        raise UserError(f"cannot listen on {host}:{port}: {reason}; give another --port") from None
    return listener


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until a signal; port 0 takes a free one, and the log says which."""
    settings = replace(settings, host=f"[{host}]" if ":" in host else host)
    device = choose_device(settings.device, "--device")
    model = model_of(settings, device)
    app = create_app(model, settings)
    logs.to_stderr()
    listener = listen(host, port)
    url = f"http://{settings.host}:{listener.getsockname()[1]}"
    logs.log("listening", url=url, pid=os.getpid())
    if not settings.keys and not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        logs.warn("without --keys FILE everybody who reaches this port is served", host=host)
    if settings.keys and others_can_read(settings.keys):
        logs.warn("every user of this machine can read the keys; chmod o-r", file=settings.keys)
    template = app.state.service.template
    if template is not None and template.can_be_forged:
        logs.warn("the chat template marks turns by text, so a message can forge one")
    server = make_server(app, settings.drain_seconds)
    server.run(sockets=[listener])
