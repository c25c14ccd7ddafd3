"""From text on disk to seeded training batches."""

from blt.data.heldout import Split, split
from blt.data.loader import Batch, Loader, loader_of, segments
from blt.data.python_corpus import python_corpus
from blt.data.sources import Corpus, read

__all__ = [
    "Batch",
    "Corpus",
    "Loader",
    "Split",
    "loader_of",
    "python_corpus",
    "read",
    "segments",
    "split",
]
