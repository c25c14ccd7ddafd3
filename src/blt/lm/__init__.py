"""What users hold: a language model over bytes that scores, patches, saves and writes."""

from blt.lm.byte_models import BLT, ByteLM
from blt.lm.language_model import SCORING_BYTES, LanguageModel
from blt.lm.loading import FACES, from_transformers, load
from blt.lm.token_models import TokenLM, TokenModel

__all__ = [
    "BLT",
    "FACES",
    "SCORING_BYTES",
    "ByteLM",
    "LanguageModel",
    "TokenLM",
    "TokenModel",
    "from_transformers",
    "load",
]
