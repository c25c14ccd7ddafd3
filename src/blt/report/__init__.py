"""What is there, shown or checked, belongs here: pages, curves, heat-maps, terminals, damage; no verbs.

What only one verb prints stands beside that verb in ``blt.cli``.
"""
