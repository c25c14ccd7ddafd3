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
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
RETRY_SECONDS = 1


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
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error")
        detail = ErrorDetail(message=self.message, type=kind, param=self.param, code=self.code)
        return ErrorBody(error=detail).model_dump()

    def response(self) -> JSONResponse:
        headers = {}
        if self.status in (429, 503):
            headers["Retry-After"] = str(RETRY_SECONDS)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


# For the OpenAPI schema: what every route of /v1 may answer besides 200.
RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Not JSON, or not HTTP"},
    401: {"model": ErrorBody, "description": "A wrong or missing API key"},
    404: {"model": ErrorBody, "description": "No such model"},
    408: {"model": ErrorBody, "description": "The body did not come in time"},
    413: {"model": ErrorBody, "description": "The body is too large"},
    415: {"model": ErrorBody, "description": "Not application/json, or compressed"},
    422: {"model": ErrorBody, "description": "A parameter that is impossible or beyond a limit"},
    429: {"model": ErrorBody, "description": "The queue is full; Retry-After says when to return"},
    431: {"model": ErrorBody, "description": "The headers are too large"},
    503: {"model": ErrorBody, "description": "The server is shutting down"},
    504: {"model": ErrorBody, "description": "Not finished in time"},
}


def of_validation(error: RequestValidationError) -> APIError:
    """The first of pydantic's complaints, without the input that it is about."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return APIError(400, "the body is not valid JSON", code="json_invalid")
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    message = f"{where}: {first['msg']}" if where else first["msg"]
    return APIError(422, message, param=where or None, code=first["type"])


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
    async def plain(_: Request, error: HTTPException) -> JSONResponse:
        answer = APIError(error.status_code, str(error.detail)).response()
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        logging.getLogger("blt.serve").error("failed: %s", type(error).__name__)
        return APIError(500, "the server has failed at this request; its log says why").response()
