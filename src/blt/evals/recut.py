"""Another θ for a model that is there: given, or calibrated to a patch size on text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blt.data import read
from blt.errors import UserError, require
from blt.lm import LanguageModel


def recut(
    lm: LanguageModel,
    threshold: float | None,
    target_patch_size: float | None,
    calibrate_on: Path | str | None,
) -> None:
    """Set θ of ``lm`` as the options of these names say; without any it stays.

    Args:
        threshold: θ, in nats.
        target_patch_size: bytes per patch of the text in ``calibrate_on``.
        calibrate_on: a source of text, such as a file or folder.

    Raises:
        UserError: options that do not belong together, no text, or a rule without a threshold.
    """
    check_asked(threshold, target_patch_size, calibrate_on)
    texts = [] if calibrate_on is None else read((str(calibrate_on),)).documents
    set_threshold(lm, threshold, target_patch_size, texts)


def check_asked(
    threshold: float | None, target_patch_size: float | None, calibrate_on: Path | str | None
) -> None:
    """Refuse options of :func:`recut` that do not belong together."""
    check_choice(threshold, target_patch_size)
    if target_patch_size is None:
        require(calibrate_on is None, "--calibrate-on: to what size? Give --target-patch-size too")
    elif calibrate_on is None:
        raise UserError(
            "--target-patch-size: needs text to find θ on; name some like that which will be read, "
            "with --calibrate-on FILE"
        )


def check_choice(threshold: float | None, target_patch_size: float | None) -> None:
    """Refuse both options at once."""
    both = threshold is not None and target_patch_size is not None
    require(not both, "--threshold and --target-patch-size both say where patches end; choose one")


def set_threshold(
    lm: LanguageModel,
    threshold: float | None,
    target_patch_size: float | None,
    texts: Sequence[bytes],
    context_bytes: int = 2048,
) -> None:
    """Set θ of ``lm``, or calibrate it on ``texts``.

    Raises:
        UserError: a rule without a threshold, or no model with patches; names it.
    """
    if threshold is not None:
        lm.threshold = threshold
    elif target_patch_size is not None:
        lm.calibrate(texts, target_patch_size, context_bytes=context_bytes)
