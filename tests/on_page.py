"""What a person does on the page at `/`, and waits for."""

from __future__ import annotations

import re
from typing import Any


def wait_for(page: Any, selector: str, text: str | re.Pattern[str]) -> None:
    page.locator(selector).filter(has_text=text).wait_for()


def type_text(page: Any, text: str) -> None:
    """Put in a text and wait until it is the one that is cut."""
    with page.expect_response("**/v1/patches"):
        page.locator("#text").fill(text)
    wait_for(page, "#count-bytes", re.compile(f"^{len(text.encode())}$"))
