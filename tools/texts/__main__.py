"""Translated text of many languages, out of packages with clear licences.

    python -m tools.texts data/texts --against ../shared/data/bench-* ../shared/data/valid-*

Fetches the packages of sources.toml by pip, npm and apt-get, checks that each is the one pinned,
and writes text/LANGUAGE/SOURCE.jsonl.gz, SOURCES.json, SOURCES.md and licences/ into the folder.
Lines that hold a block of 50 letters of what evaluates (--against) are dropped. The same packages
give the same text.
"""

from __future__ import annotations

from tools.texts.asked import build_asked
from tools.texts.build import build
from tools.texts.fetch import LIST

if __name__ == "__main__":
    build_asked("tools.texts", __doc__, LIST, build)
