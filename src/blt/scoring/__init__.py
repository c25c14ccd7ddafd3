"""What a model says about text that is there belongs here: bits and continuations; no tasks, no
tables, no writing.
"""
