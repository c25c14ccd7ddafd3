"""What the model writes on the page is the engine's, until it is stopped."""

from __future__ import annotations

from typing import Any

from blt.lm import BLT
from on_page import wait_for


def test_model_writes_what_the_engine_writes(page: Any, shipped: BLT) -> None:
    page.locator("#prompt").fill("The sea ")
    page.locator("#max-bytes").fill("60")
    page.locator("#temperature").fill("0")
    page.locator("#write").click()
    wait_for(page, "#write-notice", "Finished.")
    written = shipped.generate("The sea ", max_bytes=60, valid_utf8=True)
    shown = page.locator("#written [role=option]").all_text_contents()
    assert shown == [patch.decode() for patch in written.patches]
    assert page.locator("#written .accepted").count() > 0
    assert page.locator("#written .replaced").count() > 0
    assert "guesses accepted" in page.locator(".tally").text_content()
    page.locator("#written [role=option]").nth(1).hover()
    alternatives = page.locator("#write-inspector .alternatives").first
    assert alternatives.locator("li").count() == 5
    assert "%" in alternatives.locator(".taken").text_content()


def test_stop_ends_the_writing(page: Any) -> None:
    """In the page, at the first patch: from here a text may have ended meanwhile."""
    page.locator("#max-bytes").fill("8192")
    page.locator("#draft").fill("0")
    page.evaluate(
        """() => new MutationObserver((_, observer) => {
            if (!document.querySelector("#written [role=option]")) return;
            observer.disconnect();
            document.getElementById("stop").click();
        }).observe(document.getElementById("written"), {childList: true, subtree: true})"""
    )
    page.locator("#write").click()
    wait_for(page, "#write-notice", "Stopped after")
    assert page.locator("#write").is_enabled()


def test_nothing_is_taken_after_stop_also_of_an_answer_that_is_here_as_a_whole(page: Any) -> None:
    found = page.evaluate(
        """async () => {
          const { complete } = await import("/page/api.js");
          const lines = ['{"choices": [1]}', '{"choices": [2]}', "[DONE]"];
          const body = lines.map((line) => "data: " + line + "\\n\\n").join("");
          const usual = window.fetch;
          window.fetch = async () => new Response(body);
          const abort = new AbortController();
          const taken = [];
          try {
            for await (const chunk of complete({}, { signal: abort.signal })) {
              taken.push(chunk.choices[0]);
              abort.abort();
            }
          } catch (error) {
            taken.push(error.name);
          } finally {
            window.fetch = usual;
          }
          return taken;
        }"""
    )
    assert found == [1, "AbortError"]
