"""θ for a wanted patch size, and the patch size that a θ gives, as functions of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from blt.patching.counts import count_entropies
from blt.patching.fairness import fair_table
from blt.patching.patcher import SAMPLE_BYTES, EntropyModel, OnShare, Patcher
from blt.patching.rules import PatchingConfig
from blt.patching.tables import lookup_entropies
from blt.patching.thresholds import check_size, table_threshold

LOOKUP_BYTES = 2**22  # to learn a table from: most n-grams are rare


def calibrate(
    entropy_model: EntropyModel,
    documents: Sequence[bytes],
    target: float,
    config: PatchingConfig,
    *,
    context_bytes: int = 2048,
    sample_bytes: int | None = SAMPLE_BYTES,
    dtype: torch.dtype | None = None,
    on_progress: OnShare | None = None,
) -> PatchingConfig:
    """Set θ so that patches of ``documents`` have ``target`` bytes on average.

    Args:
        documents: text to sample from: training text, never held-out text.
        target: bytes per patch.
        config: an entropy rule; all but its threshold stays.
        context_bytes: documents are cut into pieces of at most so many bytes.
        sample_bytes: how much text to look at; None: all of it.
        dtype: of matrix products; None: bfloat16 on a GPU that has it, else float32.
        on_progress: called with the share of it that has been looked at.

    Raises:
        UserError: another rule, no text, or a target below 1.
    """
    return (
        Patcher(config, entropy_model)
        .calibrated(
            documents,
            target,
            context_bytes=context_bytes,
            sample_bytes=sample_bytes,
            dtype=dtype,
            on_progress=on_progress,
        )
        .config
    )


def learn_lookup_table(
    entropy_model: EntropyModel | None,
    documents: Sequence[bytes],
    target: float,
    config: PatchingConfig,
    *,
    sample_bytes: int | None = LOOKUP_BYTES,
    **how: Any,
) -> tuple[PatchingConfig, Tensor]:
    """A table for the rule "lookup", with θ set so that it cuts patches of ``target`` bytes.

    Args:
        entropy_model: the table cuts where it is unsure (paper §4.2); None: where plain counts
            of the bytes of ``documents`` are (:func:`blt.patching.counts.count_entropies`).

    Other arguments are those of :func:`calibrate`.

    Returns:
        the config with the θ that was used (with ``fair_scripts`` as it was: scripts have their
        own), and the table [260 ** order] bool.

    Raises:
        UserError: no text, or a target below 1.
    """
    rule = "byte" if entropy_model is None else "entropy"
    asked = Patcher(replace(config, rule=rule), entropy_model)
    check_size(target)
    seen = list(asked.observed(documents, sample_bytes=sample_bytes, **how))
    ids, order = [ids for ids, _ in seen], config.lookup_order
    if entropy_model is None:
        values = count_entropies(ids, order)
    else:
        taught = [(ids, entropies) for ids, entropies in seen if entropies is not None]
        values = lookup_entropies(taught, order)
    if config.fair_scripts:
        return config, fair_table(values, ids, target, config.max_patch_length)
    threshold = table_threshold(values, ids, target, config.max_patch_length)
    return replace(config, threshold=threshold), values > threshold


def mean_patch_size(
    config: PatchingConfig,
    entropy_model: EntropyModel | None,
    documents: Sequence[bytes],
    *,
    sample_bytes: int | None = None,
    table: Tensor | None = None,
    **how: Any,
) -> float:
    """Bytes per patch of ``documents`` (BOS not counted), or of a sample of them; 0.0 for none.

    Args:
        table: for the rule ``lookup``.
        how: as for :meth:`blt.patching.Patcher.observed`.
    """
    patcher = Patcher(config, entropy_model, table)
    return patcher.mean_patch_size(documents, sample_bytes=sample_bytes, **how)
