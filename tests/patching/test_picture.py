"""A notebook shows every byte of a text in its patch, and none of them is markup."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.patching.picture import MOST, picture
from shapes import random_blt


class _Read(HTMLParser):
    """Tags, and the text of each span."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.spans: list[str] = []
        self.tips: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.inside = tag == "span"
        if self.inside:
            self.spans.append("")
            self.tips.append(dict(attrs)["title"] or "")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.spans[-1] += data


@pytest.mark.parametrize("rule", ["entropy", "space", "learned"])
@given(data=st.binary(max_size=80) | st.sampled_from([b"<script>x</script>", b'"&\xff\x00\n', b""]))
def test_each_patch_is_a_span_with_its_bytes(rule: str, data: bytes) -> None:
    lm = random_blt(rule)
    patches, cut = lm.patch(data), lm.patcher.cut(data)
    for page in (patches._repr_html_(), cut._repr_html_()):
        assert page is not None
        found = _Read(page)
        assert found.tags <= {"div", "span", "small"}
        assert [bytes.fromhex(re.split(" …| ·", tip)[0]) for tip in found.tips] == [
            patch[:32] for patch in cut.patches
        ]
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", page)
    assert "bits" in (patches._repr_html_() or "") or rule != "entropy" or not data


def test_text_can_be_read() -> None:
    page = picture([b"<b>", "é".encode(), b"\n"], [0.5] * 6, "a & b")
    assert _Read(page).spans == ["<b>", "é", "⏎\n"]
    assert html.escape("a & b") in page
    assert "6 bytes in 3 patches" in page


def test_a_long_text_is_drawn_in_part() -> None:
    page = picture([b"abcd"] * (MOST // 4 + 10))
    assert "40 bytes more" in page
    assert len(_Read(page).spans) == MOST // 4


def test_patches_made_by_hand_have_no_picture() -> None:
    lm = random_blt()
    found = lm.patch("text")
    made = blt.Patches(found.starts, found.lengths, found.ids, None, True)
    assert made._repr_html_() is None
