"""θ for a wanted patch size, and the patch size that a θ gives, as functions of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from blt.patching.patcher import SAMPLE_BYTES, EntropyModel, OnShare, Patcher
from blt.patching.rules import PatchingConfig
from blt.patching.tables import lookup_entropies, lookup_key
from blt.patching.thresholds import threshold_for

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
    entropy_model: EntropyModel,
    documents: Sequence[bytes],
    target: float,
    config: PatchingConfig,
    *,
    sample_bytes: int = LOOKUP_BYTES,
    **how: Any,
) -> tuple[PatchingConfig, Tensor]:
    """A table for the rule "lookup" that cuts where ``entropy_model`` is unsure (paper §4.2).

    Arguments and errors as of :func:`calibrate`.

    Returns:
        the config with the θ that was used, and the table [260 ** order] bool.
    """
    entropy_rule = replace(config, rule="entropy")
    asked = Patcher(entropy_rule, entropy_model)
    seen = asked.observed(documents, sample_bytes=sample_bytes, **how)
    found = [(ids, entropies) for ids, entropies in seen if entropies is not None]
    means = lookup_entropies(found, config.lookup_order)
    looked_up = [(ids, means[lookup_key(ids, config.lookup_order)]) for ids, _ in found]
    chosen = threshold_for(looked_up, target, entropy_rule)
    return replace(config, threshold=chosen.threshold), means > chosen.threshold


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
