"""The documentation site builds without a warning, and fetches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pages import ROOT

pytestmark = pytest.mark.slow  # half a minute


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(out / "doctrees"), str(ROOT / "docs"), str(out / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out / "html"


def test_every_page_is_there(site: Path) -> None:
    results = ROOT / "docs" / "results"  # data, for who looks at the repository
    for page in (ROOT / "docs").rglob("*.md"):
        if page.is_relative_to(results):
            continue
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file()


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=["'](?:https?:)?//""")
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text()), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text()), style


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    import blt

    reference = (site / "api.html").read_text()
    for name in blt.__all__:
        assert f'id="blt.{name}"' in reference, name
