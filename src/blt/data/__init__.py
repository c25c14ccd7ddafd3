"""From text on disk to seeded training batches: sources, formats, shards, order; no model
but one that gives entropies, and no training.
"""

from blt.data.form import SourceConfig
from blt.data.heldout import Split, split
from blt.data.loader import Loader, loader_of
from blt.data.python_corpus import python_corpus
from blt.data.sources import Corpus, read
from blt.model.language import Batch
from blt.texts.pieces import segments

__all__ = [
    "Batch",
    "Corpus",
    "Loader",
    "SourceConfig",
    "Split",
    "loader_of",
    "python_corpus",
    "read",
    "segments",
    "split",
]
