"""HTML reports, curves and heat-maps of what is on disk, and text on a terminal; knows no verbs.

What only one verb prints stands beside that verb in ``blt.cli``.
"""
