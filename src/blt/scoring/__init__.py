"""What a model makes of text that is there belongs here: bits, continuations, states, vectors; no
tasks, no tables, no writing.
"""
