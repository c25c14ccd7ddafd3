"""The server as an ASGI app: who may come in, and its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from blt import __version__
from blt.lm import LanguageModel
from blt.serve import errors, static
from blt.serve.guard import Door, Guard
from blt.serve.hosts import Hosts
from blt.serve.keys import Keys
from blt.serve.logs import log
from blt.serve.routes import add_routes
from blt.serve.service import Service
from blt.serve.settings import Settings


def create_app(lm: LanguageModel, settings: Settings | None = None) -> FastAPI:
    """The server as an ASGI app; its lifespan runs the engine.

    Raises:
        UserError: an impossible setting, a keys file without keys, a model that cannot write.
        OSError: no keys file.
    """
    settings = settings or Settings()
    service, keys, door = Service(lm, settings), Keys.read(settings.keys), Door()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            log("serving", model=service.name, kind=lm.kind)
            yield

    # Pages with scripts from elsewhere (docs_url, redoc_url) are left out.
    app = FastAPI(
        title="blt", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service, app.state.door = service, door
    errors.install(app)
    add_routes(app, service, door)
    static.mount(app)
    app.add_middleware(
        Guard,
        keys=keys,
        hosts=Hosts.of(settings),
        door=door,
        metrics=service.metrics,
        limits=settings.limits,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's client in browsers sends x-stainless-... of its own
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    return app
