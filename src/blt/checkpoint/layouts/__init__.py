"""How each project lays out a model folder: one file a layout, and nothing of how it is used."""
