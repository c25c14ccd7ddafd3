"""What a recipe trains on."""

from __future__ import annotations

from collections.abc import Sequence

from blt.chat import ChatTemplate
from blt.checkpoint.pretrained import identity
from blt.data.heldout import Split
from blt.data.loader import Loader
from blt.data.noised import with_noise
from blt.data.segments import MemorySegments, Segments
from blt.data.shards import ShardSegments
from blt.data.text import Reading, Source, open_sources, weighted_sources
from blt.errors import UserError, require
from blt.model.transformer import CausalTransformer
from blt.train.recipe import Recipe
from blt.train.sections import DataConfig

PATCH_SAMPLE = 65536  # bytes of held-out text that the patch size is reported on


def open_text(
    recipe: Recipe, template: ChatTemplate | None = None, heldout_bytes: int = 0
) -> list[Source]:
    """What a recipe trains on and is evaluated on.

    Args:
        template: how conversations are laid out; None: as by default.
        heldout_bytes: how much of what a prepared folder holds out is read, at least.

    Raises:
        UserError: as of :func:`blt.data.text.open_sources`, or text that byteify cannot learn.
    """
    data = recipe.data
    opened = weighted_sources if data.weights else open_sources
    sources = opened(
        data.sources,
        heldout=data.heldout,
        max_bytes=data.max_bytes,
        context_bytes=data.context_bytes,
        heldout_bytes=max(PATCH_SAMPLE, heldout_bytes, recipe.train.eval_bytes),
        reading=Reading(data.learn, data.max_broken, template),
    )
    if recipe.byteify is not None:
        _check_learned_whole(sources)
    return sources


def _check_learned_whole(sources: Sequence[Source]) -> None:
    """A token model has no ids between turns, and is scored on whole texts."""
    for source in sources:
        require(
            source.learned_whole,
            f"{source.name}: has conversations, or answers of which alone is learned, and byteify "
            "learns and compares text as a whole; byteify with plain text, then train on this one "
            "with init",
        )


def texts_of(sources: Sequence[Source], data: DataConfig) -> list[Segments]:
    """What batches are made of: the text of each source, a share of it disturbed."""
    return [with_noise(source.train, data.noise, data.noises) for source in sources]


def check_entropies(
    sources: Sequence[Source], recipe: Recipe, entropy_model: CausalTransformer | None
) -> None:
    """Stored entropies must be those that the recipe's entropy model would give.

    Raises:
        UserError: another model's, with another reset, or of text that is yet to be disturbed;
            names the folder.
    """
    if recipe.model is None or not recipe.model.patching.needs_entropies:
        return
    for source in sources:
        stored = source.train.entropy_model if isinstance(source.train, ShardSegments) else None
        if stored is None or not isinstance(source.train, ShardSegments):
            continue
        if recipe.data.noise:
            raise UserError(
                f"{source.name}: holds entropies of its text as it is, and data.noise disturbs "
                "it; prepare it again without an entropy model, or leave out data.noise"
            )
        if entropy_model is None or identity(entropy_model) != stored:
            raise UserError(
                f"{source.name}: was prepared with another entropy model than "
                f"{recipe.entropy_model}; prepare it again with that one, or name the other in the "
                "recipe"
            )
        reset = source.train.manifest["options"]["newline_reset"]
        if reset != recipe.model.patching.newline_reset:
            raise UserError(
                f"{source.name}: was prepared with newline_reset {reset}; prepare it again, or set "
                "model.patching.newline_reset to the same"
            )


def loader(parts: Split, data: DataConfig, seed: int) -> Loader:
    """Training batches of documents in memory, as a recipe asks for them."""
    text = MemorySegments(parts.train, data.context_bytes, parts.cut)
    return Loader(
        [with_noise(text, data.noise, data.noises)],
        batch_bytes=data.batch_bytes,
        context_bytes=data.context_bytes,
        seed=seed,
    )
