"""The page at `/`, driven in headless Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blt import patching, vocab
from blt.checkpoint.pretrained import load_shipped
from blt.lm import BLT
from blt.patching import Cut
from on_page import type_text, wait_for

VIEW = "#patch-view [role=option]"
TEXT = "Two ferries, one é and 漢字."


def cut(shipped: BLT, text: str, **changes: Any) -> Cut:
    """What the library makes of a text: as the model cuts it, or by another rule."""
    patcher = load_shipped() if changes else shipped.patcher
    return replace(patcher, config=replace(patcher.config, **changes)).cut(text.encode())


def rgb(page: Any) -> tuple[int, ...]:
    """The page's background."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return tuple(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))


def test_pure_modules_pass_their_own_tests() -> None:
    node = shutil.which("node")
    version = subprocess.check_output([node, "--version"], text=True) if node else "v0.0"
    if tuple(map(int, version.strip("v\n").split(".")[:2])) < (20, 19):
        pytest.skip("needs Node 20.19")
    run = subprocess.run(
        [node, "--test", Path(__file__).with_name("page.test.mjs")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout


def test_browser_patches_by_every_rule_as_the_library_does(page: Any) -> None:
    torch.manual_seed(0)
    cases = []
    for seed in range(60):
        data = bytes(torch.randint(256, (seed,)).tolist())
        threshold = 0.3 + seed / 50
        entropies = torch.rand(seed + 1) * 3
        entropies[::3] = threshold  # in float32: what is equal is not above
        for rule in ("entropy", "entropy-monotonic", "entropy-combined", "space", "static", "byte"):
            config = patching.PatchingConfig(
                rule,
                threshold=threshold,
                threshold_add=0.1,
                stride=1 + seed % 5,
                max_patch_length=(None, 1, 3, 4)[seed % 4],
            )
            starts = patching.decide(config, vocab.encode(data), entropies)[1:-1]
            fields = ("rule", "threshold", "threshold_add", "stride")
            parameters = {name: getattr(config, name) for name in fields}
            if config.max_patch_length is not None:
                parameters["max_patch_length"] = config.max_patch_length
            cases.append((parameters, list(data), entropies[:-1].tolist(), starts.tolist()))
    wrong = page.evaluate(
        """async (cases) => {
          const { decide } = await import("/page/patching.js");
          return cases.filter(([rule, data, entropies, starts]) =>
            String(decide(rule, Uint8Array.from(data), entropies)) !== String(starts));
        }""",
        cases,
    )
    assert wrong == []


def test_typed_text_is_shown_in_the_models_patches(page: Any, shipped: BLT) -> None:
    page.locator("#text").press_sequentially(" Aha!")
    type_text(page, "Plain words, cut as they are typed.")
    expected = cut(shipped, "Plain words, cut as they are typed.")
    assert page.locator(VIEW).all_text_contents() == [patch.decode() for patch in expected.patches]
    assert page.locator("#mean-size").text_content() == f"{expected.mean_size:.2f}"


def test_slider_cuts_at_once_and_asks_nobody(page: Any, shipped: BLT) -> None:
    type_text(page, TEXT)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    assert not page.locator("#theta-control").is_visible()  # the model cuts by a table
    assert "A table of the last bytes" in page.locator("#patches-note").text_content()
    page.locator("#rule").select_option("entropy")
    page.locator("#theta").fill("1.5")
    expected = cut(shipped, TEXT, threshold=1.5)
    wait_for(page, "#mean-size", f"{expected.mean_size:.2f}")
    assert page.locator("#rule").input_value() == "entropy"
    page.locator("#theta").press("Home")
    everything = cut(shipped, TEXT, threshold=0.0)
    wait_for(page, "#count-patches", str(len(everything.lengths)))
    assert "bytes per patch" in page.locator("#theta").get_attribute("aria-valuetext")
    assert asked == []


def test_a_model_that_cuts_by_entropy_shows_its_threshold_and_keeps_its_longest_patch(
    page: Any, shipped: BLT
) -> None:
    def with_a_threshold(route: Any) -> None:
        models = route.fetch().json()
        own = {"threshold": 2.0, "max_patch_length": 3}
        models["data"][0] |= {"rule": "entropy", "threshold": 2.0, "parameters": own}
        route.fulfill(json=models)

    page.route("**/v1/models", with_a_threshold)
    page.reload()
    type_text(page, TEXT)
    assert "more than the threshold" in " ".join(
        page.locator("#patches-note").text_content().split()
    )
    assert page.locator("#theta").input_value() == "2"
    page.locator("#theta").fill("1.5")
    assert page.locator("#rule").input_value() == "entropy"
    patches = cut(shipped, TEXT, threshold=1.5, max_patch_length=3).lengths
    wait_for(page, "#count-patches", str(len(patches)))


def test_a_threshold_between_two_steps_of_the_slider_stays_until_it_is_moved(
    page: Any, shipped: BLT
) -> None:
    """One just above an entropy of the text, which would be below that if it were rounded."""
    entropies = cut(shipped, TEXT, threshold=1.0).entropies
    assert entropies is not None
    own = 5e-5 + next(h for h in entropies[1:] if h > 1 and round(h + 5e-5, 3) < h - 5e-5)

    def with_a_threshold(route: Any) -> None:
        models = route.fetch().json()
        models["data"][0] |= {"rule": "entropy", "threshold": own, "parameters": {"threshold": own}}
        route.fulfill(json=models)

    def patches(nats: float) -> int:
        return len(cut(shipped, TEXT, threshold=nats).lengths)

    page.route("**/v1/models", with_a_threshold)
    page.reload()
    type_text(page, TEXT)
    assert page.locator("#theta-value").text_content() == f"{own:.3f}"
    page.locator("#rule").select_option("entropy")
    assert patches(own) < patches(round(own, 3))
    wait_for(page, "#count-patches", re.compile(f"^{patches(own)}$"))
    page.locator("#theta").press("ArrowRight")
    moved = float(page.locator("#theta").input_value())
    assert 0 < moved - own < 0.002
    wait_for(page, "#theta-value", f"{moved:.3f}")
    wait_for(page, "#count-patches", re.compile(f"^{patches(moved)}$"))


def test_rules_stand_side_by_side(page: Any, shipped: BLT) -> None:
    type_text(page, TEXT)
    rows = page.locator("#rules-body tr")
    assert rows.count() == 7
    assert rows.nth(4).text_content().startswith("space")
    patches = rows.nth(4).locator(".number").first.text_content()
    assert int(patches) == len(cut(shipped, TEXT, rule="space").lengths)
    page.locator("#rule").select_option("static")
    page.locator("#stride").fill("7")
    wait_for(page, "#count-patches", str(len(cut(shipped, TEXT, rule="static", stride=7).lengths)))
    assert not page.locator("#theta-control").is_visible()


def test_any_bytes_are_drawn_and_none_is_run(page: Any) -> None:
    text = "<img src=x onerror=alert(1)>\0\x1b\t\u202e e\u0301 👩‍👩‍👧‍👦 سلام"
    type_text(page, text)
    assert page.locator("#patch-view img").count() == 0
    shown = page.locator("#patch-view").text_content()
    for part in ("<img", "NUL", "ESC", "TAB", "U+202E", "👩‍👩‍👧‍👦", "سلام", "D8"):
        assert part in shown
    page.locator("#as-hex").check()
    page.locator("#text").fill("ff 00 C3 A9 4")
    wait_for(page, "#patches-notice", "half a byte")
    with page.expect_request("**/v1/patches") as asked:
        page.locator("#text").fill("ff 00 C3 A9 41")
    assert asked.value.post_data_json["bytes"] == "/wDDqUE="
    wait_for(page, "#count-bytes", "5")
    page.locator("#text").fill("")
    wait_for(page, "#count-bytes", "0")


def test_switching_to_bytes_and_back_converts_what_is_in_the_box(page: Any) -> None:
    type_text(page, "é\n漢")
    shown = page.locator("#patch-view").text_content()
    page.locator("#as-hex").check()
    assert page.locator("#text").input_value() == "C3 A9 0A E6 BC A2"
    with page.expect_response("**/v1/patches"):
        page.locator("#text").fill("C3 A9 0A E6 BC A2 21")
    wait_for(page, "#count-bytes", "7")
    page.locator("#as-text").check()
    assert page.locator("#text").input_value() == "é\n漢!"
    page.locator("#text").fill("é\n漢")
    wait_for(page, "#count-bytes", "6")
    assert page.locator("#patch-view").text_content() == shown


def test_bytes_that_are_no_text_stay_bytes_and_say_so(page: Any) -> None:
    page.locator("#as-hex").check()
    for digits, reason in (("61 C3 28", "Byte 1 (C3)"), ("0D 0A", "carriage"), ("123", "half")):
        page.locator("#text").fill(digits)
        page.locator("label", has=page.locator("#as-text")).click()
        page.wait_for_timeout(400)  # typing, and the answer, must not wipe it out
        wait_for(page, "#patches-notice", reason)
        assert page.locator("#as-hex").is_checked()
        assert page.locator("#text").input_value() == digits


def test_every_rule_is_explained(page: Any) -> None:
    page.get_by_text("What do I see?").click()
    explained = page.locator(".glossary dt").all_text_contents()
    assert set(page.locator("#rule option").all_text_contents()) <= set(explained)
    assert {"nats", "θ", "global transformer"} <= set(explained)
    assert page.locator(".glossary dd").last.is_visible()


def test_right_to_left_text_runs_from_right_to_left(page: Any) -> None:
    type_text(page, "سلام عليكم")
    first, last = page.locator(VIEW).first.bounding_box(), page.locator(VIEW).last.bounding_box()
    assert first["x"] > last["x"]


def test_patches_are_walked_through_with_keys(page: Any, shipped: BLT) -> None:
    type_text(page, TEXT)
    view = page.locator("#patch-view")
    view.focus()
    view.press("ArrowRight")
    first = cut(shipped, TEXT)
    active = page.locator(f"#{view.get_attribute('aria-activedescendant')}")
    assert active.get_attribute("aria-selected") == "true"
    assert "patch 2" in active.get_attribute("aria-label").lower()
    row = page.locator("#patch-inspector tbody tr").nth(1).locator("td")
    entropies = cut(shipped, TEXT, rule="entropy").entropies
    assert row.first.text_content() == f"{entropies[first.starts[1]]:.2f}"
    view.press("End")
    assert page.locator(VIEW).last.get_attribute("aria-selected") == "true"


def test_curve_has_its_numbers_in_words_and_as_a_table(page: Any, shipped: BLT) -> None:
    type_text(page, TEXT)
    expected = cut(shipped, TEXT, rule="entropy").entropies
    said = page.locator("#curve svg").get_attribute("aria-label")
    assert f"highest at byte {expected.index(max(expected))} with {max(expected):.2f}" in said
    page.locator("#values summary").click()
    page.locator("#values-body tr").last.wait_for()
    assert page.locator("#values-body tr").count() == len(TEXT.encode())
    box = page.locator("#curve svg").bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 30)  # on the first byte
    assert "Patch 1," in page.locator("#patch-inspector").text_content()


def test_long_text_is_capped_and_says_so(page: Any) -> None:
    def answer(route: Any) -> None:
        values = [0.5, 3.0] * 10_000
        patches = [{"rule": "model", "starts": list(range(0, 20_000, 5)), "mean_size": 5.0}]
        route.fulfill(json={"entropies": values, "surprise": values, "patches": patches})

    page.route("**/v1/patches", answer)
    page.locator("#text").fill("abcde" * 5000)
    wait_for(page, "#patches-notice", "the last 5000 characters are left out")
    wait_for(page, "#count-patches", "4,000")
    page.locator(VIEW).nth(3999).wait_for()


def test_costs_of_languages_are_compared(page: Any, shipped: BLT) -> None:
    page.locator("#own-name").fill("Mine")
    page.locator("#own-text").fill("Grüße")
    page.locator("#own-form button").click()
    wait_for(page, "#languages-notice", "13 texts read.")
    rows = page.locator("#languages-body tr")
    assert rows.nth(0).locator(".cost").text_content() == "1.00 ×"
    numbers = rows.nth(12).locator("td").all_text_contents()
    assert numbers[:2] == ["7", str(len(cut(shipped, "Grüße").lengths))]
    assert numbers[3] == f"{shipped.bits_per_byte('Grüße'):.2f}"
    rows.nth(12).get_by_role("button", name="Remove Mine").click()
    assert rows.count() == 12


def test_dark_as_the_system_has_it_or_as_chosen(page: Any) -> None:
    assert min(rgb(page)) > 200
    page.emulate_media(color_scheme="dark")
    assert max(rgb(page)) < 60
    page.locator("#theme", has_text="Switch to light").wait_for()
    page.locator("#theme").click()
    assert min(rgb(page)) > 200
    page.reload()
    assert min(rgb(page)) > 200
    assert page.locator("#theme").text_content() == "Switch to dark"


@pytest.mark.parametrize("width", [320, 768])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 640})
    page.get_by_text("What do I see?").click()
    for name in ("Emoji", "العربية", "ខ្មែរ", "Any bytes"):
        page.locator("#examples").get_by_role("button", name=name, exact=True).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_axe_finds_nothing(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    type_text(page, "Two é \n\0")
    page.locator("#patch-view").focus()
    page.locator("#values summary").click()
    page.get_by_text("What do I see?").click()
    page.locator("#max-bytes").fill("20")
    page.locator("#write").click()
    wait_for(page, "#write-notice", "Finished.")
    page.locator("#written").focus()
    light = axe.run(page)
    page.emulate_media(color_scheme="dark")
    dark = axe.run(page, options={"runOnly": ["color-contrast"]})
    for found in (light, dark):
        assert found.violations_count == 0, found.generate_report()
