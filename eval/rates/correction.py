"""Win rates corrected for noise: what an annotator without flips would have said.

A flip maps a score s to 1 - s, so with flip rate p the observed w = (1 - 2p) w* + p, ties included, and

    w* = (w - p) / (1 - 2p),    Var w* = [Var w + (2 w* - 1)^2 Var p] / (1 - 2p)^2

AlpacaFarm's 25 % flips are in its training feedback only, never in its evaluation; correct what was flipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.base.errors import UserError
from farm.statistics.result import Result
from farm.statistics.uncertainty import critical

LARGEST_FLIP_RATE = 0.45


@dataclass(frozen=True)
class CorrectedWinRate(Result):
    """A win rate before and after the correction."""

    win_rate: float
    standard_error: float
    low: float
    high: float
    observed: float
    flip_rate: float
    flip_rate_standard_error: float
    outside: bool
    """the correction lies outside [0, 1]: more noise than the flip rate says, or chance"""
    confidence: float = 0.95


def noise_corrected(
    observed: float,
    standard_error: float,
    flip_rate: float,
    flip_rate_standard_error: float = 0.0,
    *,
    interval: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> CorrectedWinRate:
    """The corrected win rate with an interval in [0, 1] that has both errors, the win rate's and the flip rate's.

    Args:
        interval: of the observed win rate, where it is not symmetric (at the edge); by default from its standard error.

    Raises:
        UserError: for a flip rate of 0.45 or more, where the correction multiplies every error by ten or more.
    """
    if not 0 <= flip_rate < LARGEST_FLIP_RATE:
        raise UserError(
            f"a flip rate of {flip_rate:g} cannot be corrected for: it must lie in [0, {LARGEST_FLIP_RATE}), "
            "or the labels say next to nothing"
        )
    scale = 1 - 2 * flip_rate
    value = (observed - flip_rate) / scale
    error = float(np.sqrt(standard_error**2 + ((2 * value - 1) * flip_rate_standard_error) ** 2)) / scale
    z = critical(confidence)
    below, above = (z * standard_error,) * 2 if interval is None else (observed - interval[0], interval[1] - observed)
    flips = z * (2 * value - 1) * flip_rate_standard_error
    low, high = value - np.hypot(below, flips) / scale, value + np.hypot(above, flips) / scale
    return CorrectedWinRate(
        win_rate=value,
        standard_error=error,
        low=float(np.clip(low, 0, 1)),
        high=float(np.clip(high, 0, 1)),
        observed=observed,
        flip_rate=flip_rate,
        flip_rate_standard_error=flip_rate_standard_error,
        outside=not 0 <= value <= 1,
        confidence=confidence,
    )
