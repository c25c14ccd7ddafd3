"""The page in a real Chromium, on a server with the model of the package behind it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fastapi import FastAPI

import blt
from blt.lm import BLT
from blt.serve.app import create_app
from blt.serve.run import listen, make_server
from blt.serve.settings import Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def shipped() -> Iterator[BLT]:
    """The model of the package."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # Chromium has the other processor
    model = blt.load()
    assert isinstance(model, BLT)
    yield model
    torch.set_num_threads(threads)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Address of a server."""
    listener = listen("127.0.0.1", 0)
    server = make_server(app, drain_seconds=1)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def address(shipped: BLT) -> Iterator[str]:
    """Of a server."""
    with serving(create_app(shipped)) as url:
        yield url


@pytest.fixture(scope="module")
def chat_address(shipped: BLT) -> Iterator[str]:
    """Of a server whose model has a chat template."""
    with serving(create_app(shipped, Settings(template="default"))) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium with a profile of its own."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, its first text cut; fails on errors in scripts and on requests to elsewhere."""
    with opened(browser, address) as page:
        yield page


@pytest.fixture
def chat_page(browser: Any, chat_address: str) -> Iterator[Any]:
    """The same, of a model with a chat template."""
    with opened(browser, chat_address) as page:
        yield page


@contextmanager
def opened(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    page = context.new_page()
    page.set_default_timeout(15_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Policy" in said.text else None)
    page.on("request", lambda request: request.url.startswith(address) or wrong.append(request.url))
    page.goto(address)
    page.locator("#patch-view [role=option]").first.wait_for()
    yield page
    context.close()
    assert not wrong
