"""What is there, drawn or checked, belongs here: pages, curves, heat-maps, terminals; no verbs.

What only one verb prints stands beside that verb in ``blt.cli``.
"""
