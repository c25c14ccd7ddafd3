"""The routes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic_core import PydanticCustomError
from starlette.middleware.cors import CORSMiddleware

from blt import __version__, vocab
from blt.lm import LanguageModel
from blt.serve import errors, static
from blt.serve.analysis import parameters_of, rule_cards
from blt.serve.asked import Asked
from blt.serve.chat import ChatForm, asked_by
from blt.serve.chat_schemas import ChatCompletion, ChatRequest
from blt.serve.completions import ClientLeftError, complete, while_connected
from blt.serve.embeddings import EmbeddingList, EmbeddingRequest, embed
from blt.serve.errors import RESPONSES, APIError, ErrorBody
from blt.serve.forms import CompletionForm
from blt.serve.guard import Door, Guard
from blt.serve.hosts import Hosts
from blt.serve.keys import Keys
from blt.serve.logs import log
from blt.serve.schemas import (
    SPECIALS,
    Completion,
    CompletionRequest,
    DetokenizeRequest,
    DetokenizeResponse,
    ModelCard,
    ModelList,
    PatchesRequest,
    PatchesResponse,
    ScoreRequest,
    ScoreResponse,
    TokenizeRequest,
    TokenizeResponse,
    TokenizerInfo,
    bytes_of,
)
from blt.serve.service import Service
from blt.serve.settings import Settings

T = TypeVar("T")
# Of each event, as OpenAPI 3.1 has it.
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
EVENTS = {"text/event-stream": {"schema": EVENT}}
UNHEALTHY = "The server is shutting down, or its engine has failed"


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
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    return app


def add_routes(app: FastAPI, service: Service, door: Door) -> None:
    limits, started = service.limits, int(time.time())
    security: dict[str, Any] = {"security": [{"key": []}, {}]}
    v1: dict[str, Any] = {"responses": RESPONSES, "openapi_extra": security}

    @app.exception_handler(ClientLeftError)
    async def left(_: Request, __: ClientLeftError) -> Response:
        service.metrics.left.inc()
        return Response(status_code=499)  # for the log alone

    async def in_time(http: Request, work: Awaitable[T]) -> T:
        """What a request is answered with, unless its time is up or its client leaves first."""
        return await while_connected(http.receive, limits.timeout, work)

    def check(source: str, *sizes: int) -> None:
        longest = max(sizes, default=0)
        if longest > limits.prompt_bytes:
            message = f"{source}: a text of {longest} bytes; at most {limits.prompt_bytes} are read"
            raise APIError(422, message, param=source, code="context_length_exceeded")

    def check_asked(asked: Asked) -> None:
        check(asked.source, *asked.sizes)
        choices = len(asked.prompts) * asked.n
        most = min(limits.choices, service.settings.max_queue)
        if not 0 < choices <= most:
            message = f"{choices} choices (prompts times n) in one request; 1 to {most} are written"
            param = asked.source if asked.n == 1 else "n"
            raise APIError(422, message, param=param, code="too_many_choices")
        if asked.request.most_bytes > limits.max_bytes:
            given, most = asked.request.most_bytes, limits.max_bytes
            message = f"max_tokens {given}; at most {most} bytes are written"
            raise APIError(422, message, param="max_tokens", code="too_long")

    def card() -> ModelCard:
        own = service.analysis.own
        return ModelCard(
            id=service.name,
            created=started,
            kind=service.lm.kind,  # type: ignore[arg-type]
            rule=own.rule,
            threshold=parameters_of(own).get("threshold"),
            max_prompt_bytes=limits.prompt_bytes,
            max_bytes=limits.max_bytes,
            draft_bytes=service.drafts,
            chat=service.template is not None,
            rules=rule_cards(),
        )

    def check_name(model: str | None) -> None:
        if model not in (None, service.name):
            message = f"no model of this name; there is {service.name}"
            raise APIError(404, message, param="model", code="model_not_found")

    @app.get("/v1/models", **v1)
    async def models() -> ModelList:
        """The one model that is served."""
        return ModelList(data=[card()])

    @app.get("/v1/models/{model:path}", **v1)
    async def model(model: str) -> ModelCard:
        """The model of this name."""
        check_name(model)
        return card()

    @app.post(
        "/v1/completions",
        response_model=Completion,
        responses={**RESPONSES, 200: {"content": EVENTS}},
        openapi_extra=security,
    )
    async def completions(body: CompletionRequest, http: Request) -> Any:
        """Continue prompts; OpenAI's, with lengths in bytes."""
        check_name(body.model)
        asked = Asked.completions(body)
        check_asked(asked)
        return await complete(service, asked, CompletionForm(), http)

    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses={**RESPONSES, 200: {"content": EVENTS}},
        openapi_extra=security,
    )
    async def chat_completions(body: ChatRequest, http: Request) -> Any:
        """Answer messages, where the model has a chat template; OpenAI's, with lengths in bytes."""
        check_name(body.model)
        asked = await asked_by(service, body)
        check_asked(asked)
        return await complete(service, asked, ChatForm(), http)

    @app.post("/v1/embeddings", **v1)
    async def embeddings(body: EmbeddingRequest, http: Request) -> EmbeddingList:
        """Vectors of texts; OpenAI's, with counts in bytes."""
        check_name(body.model)
        texts = body.texts()
        check(body.source, *map(len, texts))
        http.scope["blt"]["prompt_tokens"] = sum(map(len, texts))
        return await in_time(http, embed(service, body))

    @app.post("/v1/patches", **v1)
    async def patches(body: PatchesRequest, http: Request) -> PatchesResponse:
        """Entropies of a text's bytes, and where rules start patches."""
        check_name(body.model)
        data = body.data()
        check(body.source, len(data))
        http.scope["blt"]["prompt_tokens"] = len(data)  # for the log
        work = service.analyse(lambda: service.analysis.patches(data, body.rules))
        return await in_time(http, work)

    @app.post("/v1/score", **v1)
    async def score(body: ScoreRequest, http: Request) -> ScoreResponse:
        """Bits of each byte of a text under the model."""
        check_name(body.model)
        data = body.data()
        check(body.source, len(data))
        http.scope["blt"]["prompt_tokens"] = len(data)
        work = service.analyse(lambda: service.analysis.score(data))
        scored = await in_time(http, work)
        http.scope["blt"]["prompt_patches"] = scored.patches
        return scored

    @app.get("/tokenizer_info", responses=RESPONSES, openapi_extra=security)
    async def tokenizer_info() -> TokenizerInfo:
        """What ids there are besides bytes."""
        return TokenizerInfo()

    @app.post("/tokenize", responses=RESPONSES, openapi_extra=security)
    async def tokenize(body: TokenizeRequest) -> TokenizeResponse:
        """Ids of a text: its bytes, each + 4; or of one special id, by its name alone."""
        check_name(body.model)
        special = {name: token_id for token_id, name in SPECIALS.items()}
        ids = [special[body.prompt]] if body.prompt in special else _ids(body)
        longest = limits.prompt_bytes + limits.max_bytes
        return TokenizeResponse(tokens=ids, count=len(ids), max_model_len=longest)

    @app.post("/detokenize", responses=RESPONSES, openapi_extra=security)
    async def detokenize(body: DetokenizeRequest) -> DetokenizeResponse:
        """The text of ids; what is not UTF-8 is U+FFFD."""
        check_name(body.model)
        try:
            data = bytes_of(body.tokens, "tokens")
        except PydanticCustomError as error:
            raise APIError(422, str(error), param="tokens") from None
        return DetokenizeResponse(prompt=data.decode("utf-8", "replace"))

    @app.get("/healthz", responses={503: {"model": ErrorBody, "description": UNHEALTHY}})
    async def healthz() -> dict[str, str]:
        """For load balancers: 503 once no more requests are taken."""
        if door.draining:
            raise APIError(503, "the server is shutting down", code="draining")
        if not service.engine.alive:
            raise APIError(503, "the engine has failed", code="engine_failed")
        return {"status": "ok"}

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={401: RESPONSES[401]},
        openapi_extra=security,
    )
    async def metrics() -> Any:
        """For Prometheus."""
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _ids(body: TokenizeRequest) -> list[int]:
    return vocab.encode(body.prompt.encode(), bos=body.add_special_tokens).tolist()
