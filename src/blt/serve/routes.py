"""The routes of the server: what is asked for is checked, and handed on."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic_core import PydanticCustomError

from blt import vocab
from blt.serve.allowed import Allowed
from blt.serve.analysis import parameters_of, rule_cards
from blt.serve.asked import Asked
from blt.serve.chat import ChatForm, asked_by
from blt.serve.chat_schemas import ChatCompletion, ChatRequest
from blt.serve.completions import ClientLeftError, complete, while_connected
from blt.serve.embeddings import EmbeddingList, EmbeddingRequest, embed
from blt.serve.errors import RESPONSES, APIError, ErrorBody, engine_failed
from blt.serve.forms import CompletionForm
from blt.serve.guard import Door
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

T = TypeVar("T")
# Of each event, as OpenAPI 3.1 has it.
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
EVENTS = {"text/event-stream": {"schema": EVENT}}
UNHEALTHY = "The server is shutting down, or its engine has failed"
SECURITY: dict[str, Any] = {"security": [{"key": []}, {}]}
ROUTE: dict[str, Any] = {"responses": RESPONSES, "openapi_extra": SECURITY}
STREAMED = {**ROUTE, "responses": {**RESPONSES, 200: {"content": EVENTS}}}


def add_routes(app: FastAPI, service: Service, door: Door) -> None:
    """All of them."""
    allowed = Allowed(service)
    _add_models(app, service, allowed)
    _add_writing(app, service, allowed)
    _add_reading(app, service, allowed)
    _add_ids(app, service, allowed)
    _add_watching(app, service, door)

    @app.exception_handler(ClientLeftError)
    async def left(_: Request, __: ClientLeftError) -> Response:
        service.metrics.left.inc()
        return Response(status_code=499)  # for the log alone


def _add_models(app: FastAPI, service: Service, allowed: Allowed) -> None:
    started = int(time.time())

    @app.get("/v1/models", **ROUTE)
    async def models() -> ModelList:
        """The one model that is served."""
        return ModelList(data=[card_of(service, started)])

    @app.get("/v1/models/{model:path}", **ROUTE)
    async def model(model: str) -> ModelCard:
        """The model of this name."""
        allowed.name(model)
        return card_of(service, started)


def card_of(service: Service, started: int) -> ModelCard:
    """What is said of the model that is served, since a time in seconds."""
    own, limits = service.analysis.own, service.limits
    return ModelCard(
        id=service.name,
        created=started,
        kind=service.lm.kind,  # type: ignore[arg-type]
        rule=own.rule,
        threshold=parameters_of(own).get("threshold"),
        parameters=parameters_of(own),
        max_prompt_bytes=limits.prompt_bytes,
        max_bytes=limits.max_bytes,
        draft_bytes=service.drafts,
        chat=service.template is not None,
        rules=rule_cards(),
    )


def _add_writing(app: FastAPI, service: Service, allowed: Allowed) -> None:
    @app.post("/v1/completions", response_model=Completion, **STREAMED)
    async def completions(body: CompletionRequest, http: Request) -> Any:
        """Continue prompts; OpenAI's, with lengths in bytes."""
        allowed.name(body.model)
        asked = Asked.completions(body.within(service.limits.max_bytes))
        allowed.asked(asked)
        return await complete(service, asked, CompletionForm(), http)

    @app.post("/v1/chat/completions", response_model=ChatCompletion, **STREAMED)
    async def chat_completions(body: ChatRequest, http: Request) -> Any:
        """Answer messages, where the model has a chat template; OpenAI's, with lengths in bytes."""
        allowed.name(body.model)
        asked = await asked_by(service, body)
        allowed.asked(asked)
        return await complete(service, asked, ChatForm(), http)


def _add_reading(app: FastAPI, service: Service, allowed: Allowed) -> None:
    def read(body: PatchesRequest | ScoreRequest, http: Request) -> bytes:
        """The text that is to be analysed, if it may be; the log has its size."""
        allowed.name(body.model)
        data = body.data()
        allowed.sizes(body.source, len(data))
        http.scope["blt"]["prompt_tokens"] = len(data)
        return data

    @app.post("/v1/embeddings", **ROUTE)
    async def embeddings(body: EmbeddingRequest, http: Request) -> EmbeddingList:
        """Vectors of texts; OpenAI's, with counts in bytes."""
        allowed.name(body.model)
        texts = body.texts()
        allowed.sizes(body.source, *map(len, texts))
        http.scope["blt"]["prompt_tokens"] = sum(map(len, texts))
        return await in_time(service, http, embed(service, body))

    @app.post("/v1/patches", **ROUTE)
    async def patches(body: PatchesRequest, http: Request) -> PatchesResponse:
        """Entropies of a text's bytes, and where rules start patches."""
        data = read(body, http)
        work = service.analyse(lambda: service.analysis.patches(data, body.rules))
        return await in_time(service, http, work)

    @app.post("/v1/score", **ROUTE)
    async def score(body: ScoreRequest, http: Request) -> ScoreResponse:
        """Bits of each byte of a text under the model."""
        data = read(body, http)
        work = service.analyse(lambda: service.analysis.score(data))
        scored = await in_time(service, http, work)
        http.scope["blt"]["prompt_patches"] = scored.patches
        return scored


async def in_time(service: Service, http: Request, work: Awaitable[T]) -> T:
    """What a request is answered with, unless its time is up or its client leaves first."""
    return await while_connected(http.receive, service.limits.timeout, work)


def _add_ids(app: FastAPI, service: Service, allowed: Allowed) -> None:
    @app.get("/tokenizer_info", **ROUTE)
    async def tokenizer_info() -> TokenizerInfo:
        """What ids there are besides bytes."""
        return TokenizerInfo()

    @app.post("/tokenize", **ROUTE)
    async def tokenize(body: TokenizeRequest) -> TokenizeResponse:
        """Ids of a text: its bytes, each + 4; or of one special id, by its name alone."""
        allowed.name(body.model)
        special = {name: token_id for token_id, name in SPECIALS.items()}
        ids = [special[body.prompt]] if body.prompt in special else _ids(body)
        longest = service.limits.prompt_bytes + service.limits.max_bytes
        return TokenizeResponse(tokens=ids, count=len(ids), max_model_len=longest)

    @app.post("/detokenize", **ROUTE)
    async def detokenize(body: DetokenizeRequest) -> DetokenizeResponse:
        """The text of ids; what is not UTF-8 is U+FFFD."""
        allowed.name(body.model)
        try:
            data = bytes_of(body.tokens, "tokens")
        except PydanticCustomError as error:
            raise APIError(422, str(error), param="tokens") from None
        return DetokenizeResponse(prompt=data.decode("utf-8", "replace"))


def _ids(body: TokenizeRequest) -> list[int]:
    return vocab.encode(body.data(), bos=body.add_special_tokens).tolist()


def _add_watching(app: FastAPI, service: Service, door: Door) -> None:
    @app.get("/healthz", responses={503: {"model": ErrorBody, "description": UNHEALTHY}})
    async def healthz() -> dict[str, str]:
        """For load balancers: 503 once no more requests are taken."""
        if door.draining:
            raise APIError(503, "the server is shutting down", code="draining")
        if not service.engine.alive:
            raise engine_failed()
        return {"status": "ok"}

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={401: RESPONSES[401]},
        openapi_extra=SECURITY,
    )
    async def metrics() -> Any:
        """For Prometheus."""
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")
