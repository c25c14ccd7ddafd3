"""What the page makes of answers of its server: late ones, none, and such as refuse."""

from __future__ import annotations

import base64
import re
from typing import Any

from on_page import type_text, wait_for

VIEW = "#patch-view [role=option]"
KEY = "Bearer sesame"


def test_an_answer_to_an_older_text_is_dropped(page: Any) -> None:
    held: list[Any] = []
    page.route("**/v1/patches", lambda route: held.append(route) if not held else route.continue_())
    with page.expect_request("**/v1/patches"):
        page.locator("#text").fill("the older text")
    type_text(page, "newer")
    held[0].continue_()
    page.wait_for_timeout(200)
    assert page.locator("#patch-view").text_content() == "newer"


def test_what_is_waited_for_is_dimmed_until_it_is_there(page: Any) -> None:
    results = ("#facts", "#patch-view", "#plot", "#rules-result")
    held: list[Any] = []
    page.route("**/v1/patches", lambda route: held.append(route))
    page.locator("#text").fill("a text that takes its time")
    wait_for(page, "#patches-notice", "The server is reading")
    for result in results:
        assert page.locator(result).get_attribute("aria-busy") == "true"
        assert page.evaluate(f"getComputedStyle(document.querySelector('{result}')).opacity") < "1"
    held[0].continue_()
    wait_for(page, "#count-bytes", "26")
    assert page.locator("#patches-notice").text_content() == ""
    for result in results:
        assert page.locator(result).get_attribute("aria-busy") == "false"
        assert page.evaluate(f"getComputedStyle(document.querySelector('{result}')).opacity") == "1"


def test_the_start_is_waited_for_visibly_and_its_failure_told(page: Any, address: str) -> None:
    held: list[Any] = []
    page.route("**/v1/models", lambda route: held.append(route))
    page.goto(address)
    wait_for(page, "#page-notice", "Asking the server")
    assert page.locator("#facts").get_attribute("aria-busy") == "true"
    held[0].abort("connectionrefused")
    wait_for(page, "#page-notice", "does not answer")
    assert page.locator("#facts").get_attribute("aria-busy") == "false"
    page.unroute("**/v1/models")
    page.locator("#page-notice button").click()
    page.locator(VIEW).first.wait_for()
    assert page.locator("#page-notice").text_content() == ""


def test_a_rule_that_the_page_does_not_know_is_offered_and_cut_by_the_server(page: Any) -> None:
    def with_a_new_rule(route: Any) -> None:
        models = route.fetch().json()
        new = {"rule": "every-third", "about": "Every third byte.", "parameters": []}
        models["data"][0]["rules"].append(new)
        route.fulfill(json=models)

    def answer(route: Any) -> None:
        asked = route.request.post_data_json
        assert asked["rules"] == [{"rule": "model"}, {"rule": "every-third"}]
        size = len(base64.b64decode(asked["bytes"]))
        starts = {"model": [0], "every-third": list(range(0, size, 3))}
        patches = [{"rule": rule, "starts": at, "mean_size": 3.0} for rule, at in starts.items()]
        route.fulfill(
            json={"entropies": [1.0] * size, "surprise": [1.0] * size, "patches": patches}
        )

    page.route("**/v1/models", with_a_new_rule)
    page.route("**/v1/patches", answer)
    page.reload()
    type_text(page, "abcdefghi")
    page.locator("#rule").select_option("every-third")
    assert page.locator(VIEW).all_text_contents() == ["abc", "def", "ghi"]
    assert "Every third byte." in page.locator("#rules-explained").text_content()


def test_a_server_that_is_gone_is_reported_and_asked_again(page: Any) -> None:
    page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
    page.locator("#text").fill("anyone?")
    wait_for(page, "#patches-notice", "does not answer")
    page.locator("#write").click()
    wait_for(page, "#write-notice", "does not answer")
    page.unroute("**/v1/**")
    page.locator("#patches-notice button").click()
    wait_for(page, "#count-bytes", "7")
    assert page.locator("#patches-notice").text_content() == ""


def test_a_busy_server_is_waited_for(page: Any) -> None:
    busy = {"status": 429, "headers": {"Retry-After": "1"}, "json": {"error": {"message": "full"}}}
    page.route("**/v1/patches", lambda route: route.fulfill(**busy), times=1)
    page.locator("#text").fill("patience")
    wait_for(page, "#patches-notice", "busy. Trying again in 1 s")
    wait_for(page, "#count-bytes", re.compile("^8$"))
    assert page.locator("#patches-notice").text_content() == ""


def test_what_the_server_refuses_is_shown_in_its_words(page: Any) -> None:
    refused = {"status": 400, "json": {"error": {"message": "temperature must be at least 0"}}}
    page.route("**/v1/completions", lambda route: route.fulfill(**refused))
    page.locator("#write").click()
    wait_for(page, "#write-notice", "temperature must be at least 0")
    page.unroute("**/v1/completions")
    broken = {"content_type": "text/event-stream", "body": 'data: {"choices": []}\n\n'}
    page.route("**/v1/completions", lambda route: route.fulfill(**broken))
    page.locator("#write").click()
    wait_for(page, "#write-notice", "broke off")


def test_a_key_is_asked_for_until_it_fits(page: Any) -> None:
    def guard(route: Any) -> None:
        if route.request.headers.get("authorization") == KEY:
            return route.continue_()
        return route.fulfill(status=401, json={"error": {"message": "wrong key"}})

    page.route("**/v1/**", guard)
    page.locator("#text").fill("locked")
    dialog = page.locator("#key-dialog")
    dialog.wait_for()
    page.locator("#key").fill("wrong")
    page.keyboard.press("Enter")
    page.locator("#key-wrong").wait_for()
    page.locator("#key").fill("sesame")
    dialog.get_by_role("button", name="Use it").click()
    wait_for(page, "#count-bytes", "6")
    assert not dialog.is_visible()
