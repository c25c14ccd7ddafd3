"""Every refusal as OpenAI's error object: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from blt.errors import UserError

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}


ROUTES = (
    *("/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/embeddings"),
    *("/v1/score", "/v1/patches"),
    *("/tokenize", "/detokenize", "/tokenizer_info", "/healthz", "/metrics"),
)
INSTEAD = {  # ends of paths that clients of other servers ask for
    "/chat/completions": "chats are at /v1/chat/completions",
    "/responses": "chats are at /v1/chat/completions",
    "/embeddings": "embeddings are at /v1/embeddings",
    "/tokenize": "ids of a text are at /tokenize",
    "/completions": "completions are at /v1/completions",
    "/models": "models are at /v1/models",
}


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    error: ErrorDetail


class APIError(Exception):
    """An answer with a status of 400 or more."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int = 1,
    ) -> None:
        """``retry_after``: seconds that a client is told to wait after 429 and 503."""
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error")
        # A name that a client made up may have half a surrogate pair, which no answer can have.
        detail = ErrorDetail(
            message=_sendable(self.message),
            type=kind,
            param=None if self.param is None else _sendable(self.param),
            code=self.code,
        )
        return ErrorBody(error=detail).model_dump()

    def response(self) -> JSONResponse:
        headers = {}
        if self.status in (429, 503):
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def engine_failed() -> APIError:
    """The answer once the engine takes no more."""
    return APIError(503, "the engine has failed", code="engine_failed")


def unexpected(error: Exception) -> APIError:
    """The answer to what nobody has foreseen, which is logged."""
    logging.getLogger("blt.serve").error("failed: %s", type(error).__name__, exc_info=error)
    return APIError(500, "the server has failed at this request; its log says why")


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


# For the OpenAPI schema: what every route of /v1 may answer besides 200.
RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Not JSON, not HTTP, or no messages"},
    401: {"model": ErrorBody, "description": "A wrong or missing API key"},
    403: {"model": ErrorBody, "description": "A web site that is not named"},
    404: {"model": ErrorBody, "description": "No such model"},
    408: {"model": ErrorBody, "description": "The header or the body did not come in time"},
    413: {"model": ErrorBody, "description": "The body is too large"},
    415: {"model": ErrorBody, "description": "Not application/json, or compressed"},
    421: {"model": ErrorBody, "description": "A host name that is not this server's"},
    422: {"model": ErrorBody, "description": "A parameter that is impossible or beyond a limit"},
    429: {"model": ErrorBody, "description": "A full queue or a busy address; see Retry-After"},
    431: {"model": ErrorBody, "description": "The headers are too large"},
    503: {"model": ErrorBody, "description": "Too many requests, or the server is shutting down"},
    504: {"model": ErrorBody, "description": "Not finished in time"},
}


def of_validation(error: RequestValidationError) -> APIError:
    """The first of pydantic's complaints, without the input that it is about."""
    complaints = error.errors()
    kind = complaints[0]["type"]
    if kind == "json_invalid":
        reason = f"{complaints[0]['ctx']['error']}, at character {complaints[0]['loc'][-1]}"
        return APIError(400, f"the body is not valid JSON: {reason}", code=kind)
    # Where a value may be of several types, each complains: the one that got deepest fits best.
    same = [found for found in complaints if found["loc"][:2] == complaints[0]["loc"][:2]]
    paths = [_path(found, error.body) for found in same]
    path = max(paths, key=len)
    first = same[paths.index(path)]
    param = ".".join(path) or first.get("ctx", {}).get("param")
    message = f"{param or 'the body'}: {first['msg']}"
    if kind == "not_supported":
        message = first["msg"]  # which begins with the name
    of_messages = (param or "").split(".")[0] == "messages"
    return APIError(400 if of_messages else 422, message, param=param, code=first["type"])


def _path(complaint: dict[str, Any], value: Any) -> list[str]:
    """Names and indices of what is wrong, without those of types, which pydantic puts between."""
    found = []
    for part in complaint["loc"][1:]:
        named = isinstance(value, dict) and (part in value or complaint["type"] == "missing")
        indexed = isinstance(value, list) and isinstance(part, int)
        if named or indexed:
            found.append(str(part))
            value = value.get(part) if named else value[part]
    return found


def of_unreadable(cause: BaseException | None) -> str:
    """Why a body could not even be parsed."""
    if isinstance(cause, UnicodeDecodeError):
        return f"the body is not UTF-8: byte {cause.start} begins no character"
    if isinstance(cause, RecursionError):
        return "the body is not read: its JSON is nested too deeply"
    return "the body is not read: a number in it has too many digits"


def no_route(path: str) -> str:
    """What there is instead of what was asked for; the path itself is not repeated."""
    instead = next((hint for end, hint in INSTEAD.items() if path.rstrip("/").endswith(end)), None)
    message = f"no such route; there are {', '.join(ROUTES)}"
    return f"{instead}; there are {', '.join(ROUTES)}" if instead else message


def install(app: FastAPI) -> None:
    """Answer whatever is raised in a route."""

    @app.exception_handler(APIError)
    async def known(_: Request, error: APIError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return of_validation(error).response()

    @app.exception_handler(UserError)
    async def impossible(_: Request, error: UserError) -> JSONResponse:
        return APIError(422, str(error)).response()

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        message, code = str(error.detail), None
        if error.status_code == 404:
            message = no_route(request.url.path)
        if error.status_code == 400 and error.__cause__ is not None:  # FastAPI's, of the body
            message, code = of_unreadable(error.__cause__), "json_invalid"
        answer = APIError(error.status_code, message, code=code).response()
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:  # outside of Guard
        return unexpected(error).response()
