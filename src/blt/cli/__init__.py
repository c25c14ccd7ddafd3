"""The command ``blt``: one file per verb, with its options and what it prints.

A verb's file is imported when that verb runs, and imports PyTorch inside its functions only, so
that help is quick. What is of use without the command line belongs in another room; nothing
outside imports this one.
"""

from blt.cli.command import main

__all__ = ["main"]
