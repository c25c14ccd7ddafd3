"""Curves through the results of a study: bits per byte as a power law of FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FLOORS = 64  # values tried for what no compute takes away
LEAST_FLOOR = 0.3  # bits per byte: text is not free, however large the model
DRAWS = 200  # of the bootstrap


@dataclass(frozen=True)
class PowerLaw:
    """bits per byte = floor + scale * flops ** -exponent."""

    floor: float
    scale: float
    exponent: float

    def __call__(self, flops: np.ndarray) -> np.ndarray:
        return self.floor + self.scale * flops**-self.exponent


def fit(flops: Sequence[float], bits: Sequence[float]) -> PowerLaw:
    """The least squares fit, over a grid of floors, none of them zero.

    Args:
        flops: positive, three different values at least.
        bits: bits per byte, above 0; where they come near to 0.3, the least floor is half of them.
    """
    x, y = np.log(np.asarray(flops, dtype=float)), np.asarray(bits, dtype=float)
    best, least = PowerLaw(0.0, 1.0, 0.0), np.inf
    low = min(LEAST_FLOOR, 0.5 * y.min())
    for floor in np.linspace(low, low + 0.95 * (y.min() - low), FLOORS):
        slope, start = np.polyfit(x, np.log(y - floor), 1)
        law = PowerLaw(float(floor), float(np.exp(start)), float(-slope))
        error = float(np.square(law(np.exp(x)) - y).sum())
        if error < least:
            best, least = law, error
    return best


def band(
    flops: Sequence[float], bits: Sequence[float], at: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The middle 90 % of fits to the fitted curve with residuals drawn anew.

    Returns:
        lower and upper bits per byte at ``at``.
    """
    chance, law, x = np.random.default_rng(seed), fit(flops, bits), np.asarray(flops)
    parameters = min(3, len(set(flops)))
    spread = np.sqrt(len(x) / max(1, len(x) - parameters))  # the fit has taken some of it
    residuals = (np.asarray(bits) - law(x)) * spread
    curves = [
        fit(flops, (law(x) + chance.choice(residuals, len(x))).tolist())(at) for _ in range(DRAWS)
    ]
    low, high = np.percentile(curves, (5, 95), axis=0)
    return low, high
