"""The command line of what builds text out of a list of packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from blt.errors import UserError
from tools.asked import bare, mistakes_end
from tools.texts.against import evaluated
from tools.texts.build import TABLE
from tools.texts.fetch import Source, sources

Build = Callable[[Path, Sequence[Source], np.ndarray], object]


def build_asked(tool: str, about: str | None, listed: Path, build: Build) -> None:
    """Build what the command line asks for into its folder, and print where the table is.

    Args:
        listed: the list of packages.
        build: takes the folder, the sources, and blocks of text that must not be trained on.
    """
    parser = bare(tool, about)
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="PATH")
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        metavar="SOURCE",
        help="leave out the others; their text is removed",
    )
    given = parser.parse_args()
    with mistakes_end():
        known = sources(listed)
        if wrong := set(given.only) - {source.name for source in known}:
            raise UserError(f"no source {', '.join(sorted(wrong))}; see {listed.name}")
        chosen = [source for source in known if not given.only or source.name in given.only]
        build(given.folder, chosen, evaluated(given.against))
    print(given.folder / TABLE)
