"""What the README and the documentation show works, to the letter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pages import LANGUAGES, PAGES, ROOT, blocks, run

SLOW = [page for page in PAGES if any(mark and mark.kind == "slow" for _, mark in blocks(page))]
NOT_RUN = {"nginx", "text", "{toctree}", "{eval-rst}"}  # nothing of these could be run


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))], ids=name)
def test_blocks_of_a_page_run_one_after_the_other(page: Path, as_a_reader: object) -> None:
    run(as_a_reader(page))  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=name)
def test_all_blocks_of_a_page_run(page: Path, as_a_reader: object) -> None:
    run(as_a_reader(page), slow=True)  # type: ignore[operator]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_its_language(page: Path) -> None:
    fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
    assert set(fences[::2]) <= LANGUAGES | NOT_RUN
    assert set(fences[1::2]) <= {""}


def test_what_is_not_run_says_why() -> None:
    skipped = [mark for page in PAGES for _, mark in blocks(page) if mark is not None]
    assert all(mark.reason for mark in skipped)
