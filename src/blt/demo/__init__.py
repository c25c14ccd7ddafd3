"""The demo belongs here: a small BLT trained, measured and shown beside what everybody knows,
in ten minutes; nothing that another room uses.
"""

from blt.demo.run import run_demo, show_pretrained

__all__ = ["run_demo", "show_pretrained"]
