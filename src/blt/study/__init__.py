"""Grids of trainings that are compared: at equal FLOPs, over several seeds."""

from blt.study.config import Point, Study, read_study
from blt.study.run import read_results, run_study

__all__ = ["Point", "Study", "read_results", "read_study", "run_study"]
