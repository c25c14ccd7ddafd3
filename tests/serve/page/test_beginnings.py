"""The page's beginnings and examples: buttons that put a text into a box."""

from __future__ import annotations

import re
from typing import Any

import pytest

from on_page import wait_for

GROUPS = ("#beginnings", "#examples")
ARABIC = "العربية"
KHMER = "ខ្មែរ"


def samples(page: Any, name: str) -> list[dict[str, str]]:
    """A list of samples.js."""
    found: list[dict[str, str]] = page.evaluate(
        "async (name) => (await import('/page/samples.js'))[name]", name
    )
    return found


def button(page: Any, group: str, name: str) -> Any:
    return page.locator(group).get_by_role("button", name=name, exact=True)


def test_every_beginning_fills_the_box_and_writes_nothing_by_itself(page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for sample in samples(page, "BEGINNINGS"):
        button(page, "#beginnings", sample["name"]).click()
        assert page.locator("#prompt").input_value() == sample["text"]
        said = page.locator("#write-notice").text_content()
        assert said == f"{sample['title']} is in the box. “Write” goes on from it."
    page.wait_for_timeout(200)
    assert not [url for url in asked if "/v1/" in url]
    assert page.locator("#write").is_enabled()
    assert not page.locator("#output").is_visible()


def test_a_beginning_is_chosen_with_keys_and_gone_on_from(page: Any) -> None:
    page.locator("#prompt").focus()
    page.keyboard.press("Tab")
    for _ in range(4):  # English, Python, JSON, Amharic
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == ARABIC
    page.keyboard.press("Enter")
    page.locator("#max-bytes").fill("4")
    with page.expect_request("**/v1/completions") as asked:
        page.locator("#write").click()
    begun = {sample["lang"]: sample["text"] for sample in samples(page, "BEGINNINGS")}
    assert asked.value.post_data_json["prompt"] == begun["ar"]
    wait_for(page, "#write-notice", "Finished.")
    assert page.locator("#written-prompt").text_content() == begun["ar"]


def test_a_beginning_does_not_disturb_what_is_being_written(page: Any) -> None:
    held: list[Any] = []
    page.route("**/v1/completions", lambda route: held.append(route))
    page.locator("#write").click()
    before = page.locator("#write-notice").text_content()
    button(page, "#beginnings", KHMER).click()
    assert page.locator("#write-notice").text_content() == before == "Writing …"
    assert page.locator("#written-prompt").text_content() == "The history of the"
    page.locator("#stop").click()
    wait_for(page, "#write-notice", "Stopped after 0 bytes.")


@pytest.mark.parametrize("name", [KHMER, "Any bytes", ARABIC], ids=["km", "bytes", "ar"])
def test_an_example_is_cut_when_its_button_is_pressed(page: Any, name: str) -> None:
    (sample,) = (sample for sample in samples(page, "EXAMPLES") if sample["name"] == name)
    digits = sample.get("hex")
    size = len(bytes.fromhex(digits) if digits else sample["text"].encode())
    button(page, "#examples", name).click()
    wait_for(page, "#count-bytes", re.compile(f"^{size}$"))
    assert page.locator("#text").input_value() == (digits or sample["text"])
    assert page.locator("#as-hex").is_checked() == bool(digits)


@pytest.mark.parametrize("group", GROUPS)
def test_buttons_say_their_language_to_the_browser_and_in_english(page: Any, group: str) -> None:
    buttons = page.locator(f"{group} button").evaluate_all(
        "(all) => all.map(({ textContent, lang, dir, title }) => [textContent, lang, dir, title])"
    )
    listed = samples(page, {"#beginnings": "BEGINNINGS", "#examples": "EXAMPLES"}[group])
    assert buttons == [
        [sample["name"], sample["lang"], sample.get("dir", "ltr"), sample["title"]]
        for sample in listed
    ]
    assert {lang for _, lang, direction, _ in buttons if direction == "rtl"} == {"ar", "he"}
    assert all(title.isascii() for *_, title in buttons)


@pytest.mark.parametrize("group", GROUPS)
def test_buttons_wrap_in_a_narrow_window_and_stay_large_enough_to_touch(
    page: Any, group: str
) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    page.locator(group).scroll_into_view_if_needed()
    boxes = [found.bounding_box() for found in page.locator(f"{group} button").all()]
    assert len({box["y"] for box in boxes}) > 1
    for box in boxes:
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320
        assert min(box["width"], box["height"]) >= 24
