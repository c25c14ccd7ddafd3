"""The page's chat, in headless Chromium: there where the model has a template."""

from __future__ import annotations

from typing import Any

import pytest

from blt.chat import ChatTemplate
from blt.lm import BLT
from on_page import wait_for


def ask(page: Any, text: str) -> None:
    """Ask, and wait for the answer."""
    page.locator("#chat-text").fill(text)
    page.locator("#chat-text").press("Enter")
    wait_for(page, "#chat-notice", "Finished.")


def turns(page: Any) -> list[str]:
    found: list[str] = page.locator("#chat-log p").all_text_contents()
    return found


def greedy(shipped: BLT, *contents: str, system: str = "") -> str:
    """What the engine answers."""
    roles = ("user", "assistant") * len(contents)
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    prompt = ChatTemplate.default().prompt(messages)
    return shipped.generate(prompt, max_bytes=12, valid_utf8=True).text


def settle(page: Any) -> None:
    page.locator("#chat-temperature").fill("0")
    page.locator("#chat-bytes").fill("12")


def test_there_is_no_chat_without_a_template(page: Any) -> None:
    assert not page.locator("#chat").is_visible()
    assert not page.locator("#chat-link").is_visible()


def test_answers_are_the_engines_and_all_that_was_said_goes_along(
    chat_page: Any, shipped: BLT
) -> None:
    settle(chat_page)
    ask(chat_page, "Is it <b>far</b>?")
    first = greedy(shipped, "Is it <b>far</b>?")
    assert turns(chat_page) == ["Is it <b>far</b>?", first]
    chat_page.locator("#chat-system").fill("be brief")
    ask(chat_page, "And now?")
    questions = ("Is it <b>far</b>?", first, "And now?")
    second = greedy(shipped, *questions, system="be brief")
    assert turns(chat_page) == [*questions, second]
    chat_page.locator("#chat-again").click()
    wait_for(chat_page, "#chat-notice", "Finished.")
    assert turns(chat_page) == [*questions, second]
    chat_page.locator("#chat-undo").click()
    assert turns(chat_page) == list(questions[:2])
    assert chat_page.locator("#chat-text").input_value() == "And now?"
    chat_page.locator("#chat-new").click()
    assert turns(chat_page) == []
    assert chat_page.locator("#chat-undo").is_disabled()


def test_an_answer_is_stopped_and_a_refusal_shown_in_the_servers_words(chat_page: Any) -> None:
    chat_page.locator("#chat-bytes").fill("8000")
    chat_page.locator("#chat-text").fill("On and on?")
    chat_page.locator("#chat-send").click()
    chat_page.locator("#chat-log .assistant").wait_for()
    chat_page.locator("#chat-stop").click()
    wait_for(chat_page, "#chat-notice", "Stopped.")
    assert len(turns(chat_page)) == 2
    chat_page.locator("#chat-text").fill("x" * 40_000)
    chat_page.locator("#chat-send").click()
    wait_for(chat_page, "#chat-notice", "at most 32768 are read")


def test_axe_finds_nothing_in_a_chat(chat_page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    settle(chat_page)
    ask(chat_page, "Hello?")
    light = axe.run(chat_page)
    chat_page.emulate_media(color_scheme="dark")
    dark = axe.run(chat_page, options={"runOnly": ["color-contrast"]})
    for found in (light, dark):
        assert found.violations_count == 0, found.generate_report()
    chat_page.set_viewport_size({"width": 320, "height": 700})
    assert chat_page.evaluate("document.documentElement.scrollWidth") <= 320
