"""Writes down what a study found: tables and figures."""

from __future__ import annotations

import os
from pathlib import Path

from blt.study.cells import Compared
from blt.study.characters_figures import characters_figures
from blt.study.characters_report import compared_lines
from blt.study.config import Study
from blt.study.figures import write_figures
from blt.study.folder import CHARACTERS, StudyFolder
from blt.study.tables import tables_into


def write_report(study: Study, folder: str | os.PathLike[str]) -> list[Path]:
    """Figures, ``table.md`` and ``runs.csv`` of what has ended by now, into ``folder``.

    Raises:
        UserError: there are no results yet.
    """
    out = StudyFolder(folder)
    compared = Compared.read(study, out)  # once: its draws serve tables and figures
    paths = tables_into(out, compared)
    if compared.points:
        paths += write_figures(compared, out.path)
        families = [family.name for family in study.families]
        taught = compared_lines(compared.search, out.lines(CHARACTERS))
        paths += characters_figures(taught, families, out.path)
    return paths
