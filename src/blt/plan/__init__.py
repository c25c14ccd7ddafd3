"""What a recipe will cost, before anything is trained, belongs here; nothing that reads text."""

from blt.machine.hardware import Hardware, find_hardware
from blt.plan.plan import Plan, make_plan

__all__ = ["Hardware", "Plan", "find_hardware", "make_plan"]
