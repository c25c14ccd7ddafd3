"""Model folders: ours written and read, those of other projects converted; nothing is trained."""
