"""A token model becomes a byte model: all that knows of its layers and of what it says about bytes
belongs here; how a training runs and how models are scored do not."""

from blt.byteify.compare import SCRATCH, byteify
from blt.byteify.hooks import hooks_of

__all__ = ["SCRATCH", "byteify", "hooks_of"]
