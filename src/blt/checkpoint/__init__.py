"""Model folders belong here: ours written and read, those of other projects converted, pushed; no
training's state, and nothing of how a model is used.
"""
