"""What a model says about text that is there: bits and continuations; no tasks and no tables."""
