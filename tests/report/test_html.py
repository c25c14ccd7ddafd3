import math
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.report.curves import curves_svg
from blt.report.html import (
    Curve,
    HeatText,
    ReportData,
    Scored,
    Written,
    render_report,
    write_report,
)

EVIL = "<script>alert(1)</script>&\"'\x00\udcff"
CURVE = Curve(EVIL, [0, 1, 2], [0, 10, 20], [8, 3, math.nan])


class Page(HTMLParser):
    """Collects the text of elements and every tag."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def full_report():
    evil = EVIL.encode("utf-8", "surrogateescape")
    return ReportData(
        title=EVIL,
        subtitle=EVIL,
        facts=[(EVIL, EVIL)],
        scores=[Scored(EVIL, 1.5, EVIL, highlight=True), Scored("nan", math.nan)],
        curves=[CURVE, Curve("empty", [], [], []), Curve("one", [1], [5], [2.5])],
        texts=[HeatText(evil, [1.0] * len(evil), [True] * len(evil), EVIL)],
        samples=[Written(evil, evil, EVIL)],
        recipe=EVIL,
    )


def test_everything_is_escaped_and_nothing_is_fetched():
    rendered = render_report(full_report())
    page = Page(rendered)
    assert "script" not in page.tags
    assert not {"link", "img", "iframe", "script", "object"} & set(page.tags)
    assert page.text.count("<script>alert(1)</script>&\"'\\x00\\xff") == 14
    assert "\x00" not in rendered
    assert "url(http" not in rendered
    assert "@import" not in rendered
    links = [v for k, v in page.attributes if k in ("href", "xlink:href", "src")]
    assert all(link.startswith("#") for link in links)


def test_ids_are_unique():
    ids = [value for key, value in Page(render_report(full_report())).attributes if key == "id"]
    assert ids
    assert len(ids) == len(set(ids))


@settings(max_examples=50)
@given(st.binary(max_size=60), st.binary(max_size=60), st.text(max_size=20))
def test_any_bytes(data, sample, title):
    text = HeatText(data, [0.1 * b for b in data], [b % 3 == 0 for b in data], title)
    report = ReportData(title, texts=[text], samples=[Written(sample)], recipe=title)
    render_report(report).encode("utf-8", "replace")


def test_an_empty_report_has_a_title_only():
    page = render_report(ReportData("t"))
    assert "<h1>t</h1>" in page
    assert "<section>" not in page


def test_colours_come_from_the_page():
    svg = curves_svg([CURVE], "bytes_seen")
    assert "var(--series-1)" in svg
    assert "#0" not in svg.replace('"#', "")
    assert svg.startswith("<svg")


def test_heat_text_checks_lengths():
    with pytest.raises(ValueError, match="3 bytes"):
        HeatText(b"abc", [1.0], [True] * 3)


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    target = write_report(tmp_path / "new" / "report.html", ReportData("one\udcff"))
    assert "one" in target.read_text(encoding="utf-8")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_report(target, ReportData("two"))
    assert "one" in target.read_text(encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
