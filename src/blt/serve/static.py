"""The page: files of the package, read once and served by name, so no path is ever looked up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from fastapi import FastAPI, Response

from blt.serve.errors import APIError

TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def mount(app: FastAPI) -> None:
    """``/`` is index.html; ``/page/NAME`` the others. What is not there is a 404."""
    files = read()

    def route(path: str, answer: Callable[..., Awaitable[Response]]) -> None:
        app.get(path, include_in_schema=False)(answer)

    async def index() -> Response:
        return respond(files, "index.html")

    async def file(name: str) -> Response:
        return respond(files, name)

    route("/", index)
    route("/page/{name}", file)


def read() -> dict[str, bytes]:
    """Files of the page by name."""
    folder = resources.files("blt.serve") / "page"
    if not folder.is_dir():
        return {}
    found = (entry for entry in folder.iterdir() if suffix(entry.name) in TYPES)
    return {entry.name: entry.read_bytes() for entry in found}


def suffix(name: str) -> str:
    return name[name.rfind(".") :] if "." in name else ""


def respond(files: dict[str, bytes], name: str) -> Response:
    if name not in files:
        raise APIError(404, "no such file of the page")
    return Response(files[name], media_type=TYPES[suffix(name)], headers=HEADERS)
