"""θ for a wanted patch size, and the patch size that a θ gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blt import lm, patching, vocab
from blt.data.loader import segments
from blt.errors import UserError
from blt.machine.precision import autocast
from blt.model.byte_transformer import ByteTransformer
from blt.patching import PatchingConfig
from blt.scoring.bits import BATCH_BYTES, grouped

OnShare = Callable[[float], None]  # 0..1 of a piece of work
SAMPLE_BYTES = 262144
LOOKUP_BYTES = 2**22  # to learn a table from: most n-grams are rare


def calibrate(
    entropy_model: ByteTransformer,
    documents: Sequence[bytes],
    target: float,
    config: PatchingConfig,
    *,
    context_bytes: int = 2048,
    sample_bytes: int = SAMPLE_BYTES,
    dtype: torch.dtype = torch.float32,
    on_progress: OnShare | None = None,
) -> PatchingConfig:
    """Set θ so that patches of ``documents`` have ``target`` bytes on average.

    Args:
        documents: text to sample from: training text, never held-out text.
        target: bytes per patch.
        config: an entropy rule; all but its threshold stays.
        context_bytes: documents are cut into pieces of at most so many bytes.
        sample_bytes: how much text to look at.
        on_progress: called with the share of it that has been looked at.

    Raises:
        UserError: another rule, no text, or a target below 1.
    """
    pieces = sample(documents, context_bytes, sample_bytes)
    found = list(_entropies(entropy_model, pieces, config, dtype, on_progress))
    return _calibrated(found, target, config)


def learn_lookup_table(
    entropy_model: ByteTransformer,
    documents: Sequence[bytes],
    target: float,
    config: PatchingConfig,
    *,
    context_bytes: int = 2048,
    sample_bytes: int = LOOKUP_BYTES,
    dtype: torch.dtype = torch.float32,
    on_progress: OnShare | None = None,
) -> tuple[PatchingConfig, Tensor]:
    """A table for the rule "lookup" that cuts where ``entropy_model`` is unsure (paper §4.2).

    Arguments and errors as of :func:`calibrate`.

    Returns:
        the config with the θ that was used, and the table [260 ** order] bool.
    """
    pieces = sample(documents, context_bytes, sample_bytes)
    found = list(_entropies(entropy_model, pieces, config, dtype, on_progress))
    means = patching.lookup_entropies(found, config.lookup_order)
    looked_up = [(ids, means[patching.lookup_key(ids, config.lookup_order)]) for ids, _ in found]
    chosen = _calibrated(looked_up, target, replace(config, rule="entropy"))
    return replace(config, threshold=chosen.threshold), means > chosen.threshold


def _calibrated(
    found: Sequence[tuple[Tensor, Tensor]], target: float, config: PatchingConfig
) -> PatchingConfig:
    """``config`` with the θ for ids and entropies of pieces, each with its BOS."""
    count = sum(len(ids) - 1 for ids, _ in found)
    if target >= 1 and found:
        # Each piece's BOS is a patch of its own for patching.calibrate, but not for the user.
        target = (count + len(found)) / (count / target + len(found))
    try:
        return patching.calibrate(found, target, config)
    except ValueError as error:
        raise UserError(str(error)) from None


def mean_patch_size(
    config: PatchingConfig,
    entropy_model: ByteTransformer | None,
    documents: Sequence[bytes],
    *,
    context_bytes: int = 2048,
    sample_bytes: int | None = None,
    dtype: torch.dtype = torch.float32,
    **tables: Any,
) -> float:
    """Bytes per patch of ``documents`` (BOS not counted), or of a sample of them; 0.0 for none.

    ``tables`` are those of :func:`blt.lm.decide`.
    """
    pieces = sample(documents, context_bytes, sample_bytes)
    patches = 0
    for group in grouped(pieces, BATCH_BYTES):
        ids = [vocab.encode(piece).to(_device(entropy_model)) for piece in group]
        with autocast(_device(entropy_model), dtype):
            decisions, _ = lm.decide(config, entropy_model, ids, **tables)
        patches += sum(int(decision[1:-1].sum()) for decision in decisions)
    return sum(map(len, pieces)) / max(1, patches)


def sample(documents: Sequence[bytes], context_bytes: int, size: int | None) -> list[bytes]:
    """Pieces of at most ``context_bytes`` from everywhere, about ``size`` bytes (None: all)."""
    pieces = segments(documents, context_bytes)
    if size is None or sum(map(len, pieces)) <= size:
        return pieces
    chosen: list[bytes] = []
    total = 0
    for index in np.random.default_rng(0).permutation(len(pieces)):
        if total >= size:
            break
        chosen.append(pieces[index])
        total += len(pieces[index])
    return chosen


def _entropies(
    entropy_model: ByteTransformer,
    pieces: Sequence[bytes],
    config: PatchingConfig,
    dtype: torch.dtype,
    on_progress: OnShare | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and entropies of each piece."""
    device, done, total = _device(entropy_model), 0, sum(map(len, pieces))
    for group in grouped(pieces, BATCH_BYTES):
        ids = [vocab.encode(piece).to(device) for piece in group]
        with autocast(device, dtype):
            found = lm.document_entropies(entropy_model, ids, config.newline_reset)
        yield from zip((x.cpu() for x in ids), (x.cpu() for x in found), strict=True)
        done += sum(map(len, group))
        if on_progress is not None:
            on_progress(done / max(1, total))


def _device(model: torch.nn.Module | None) -> torch.device:
    return torch.device("cpu") if model is None else next(model.parameters()).device
