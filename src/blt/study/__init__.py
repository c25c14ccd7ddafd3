"""Families of models compared at equal FLOPs belong here: what to run, how it is searched, scored
and shown; no training of its own.
"""

from blt.study.config import Family, PatcherModel, Point, Study
from blt.study.reading import read_study
from blt.study.run import run_study
from blt.study.search import LeftOut, Search

__all__ = [
    "Family",
    "LeftOut",
    "PatcherModel",
    "Point",
    "Search",
    "Study",
    "read_study",
    "run_study",
]
