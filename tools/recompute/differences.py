"""Does a cell differ from what it should be?"""

from __future__ import annotations

import numpy as np


def _differs(shown: tuple[float, ...], value: float, draws: np.ndarray, digit: float) -> bool:
    """Few seeds make few different draws, so ends are compared with a range of percentiles."""
    outer, inner = np.percentile(draws, (1, 99)), np.percentile(draws, (5, 95))
    slack = digit + 0.1 * (outer[1] - outer[0])
    return not (
        abs(shown[0] - value) <= 0.51 * digit
        and outer[0] - slack <= shown[1] <= inner[0] + slack
        and inner[1] - slack <= shown[2] <= outer[1] + slack
    )


def told(shown: tuple[float, ...], value: float, draws: np.ndarray, digit: float) -> str:
    """What a cell should be where it differs, else nothing."""
    if not _differs(shown, value, draws, digit):
        return ""
    low, high = np.percentile(draws, (2.5, 97.5))
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"
