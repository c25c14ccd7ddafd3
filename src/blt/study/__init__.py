"""Grids of trainings that are compared belong here: families, budgets, seeds, and their figures;
how one training runs does not.
"""

from blt.study.config import Point, Study, read_study
from blt.study.run import read_results, run_study

__all__ = ["Point", "Study", "read_results", "read_study", "run_study"]
