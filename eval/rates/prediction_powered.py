"""PPI++: few human labels and many judge labels together (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453).

With n pairs (y, f) of human and judge, and N judge labels f' without a human one:

    theta = mean(y) + lambda (mean(f') - mean(f)),   lambda = cov(y, f) / ((1 + n/N) var f)
    Var   = var(y - lambda f) / n + lambda^2 var(f') / N

The estimate is right whatever the judge's bias (it is lambda-weighted and corrected); what a good judge buys is the
smaller variance: n_eff / n = 1 / (1 - rho^2 N / (n + N)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from farm.base.errors import UserError
from farm.statistics.result import Result
from farm.statistics.uncertainty import SHARE, interval

ROUNDING = 1e-9
"""the share of unexplained variance that a perfect correlation may leave by rounding"""


@dataclass(frozen=True)
class PredictionPowered(Result):
    """A mean from few human and many judge labels, next to what the humans alone would give."""

    value: float
    standard_error: float
    low: float
    high: float
    weight: float
    """lambda: 0 ignores the judge, 1 trusts its difference fully"""
    correlation: float
    n: int
    judged: int
    """N, the judge's labels without a human one"""
    effective_n: float
    human_only: float
    human_only_standard_error: float
    judge_only: float
    """the judge's mean of everything: biased, shown for comparison"""
    confidence: float = 0.95


def ppi(human: ArrayLike, judge: ArrayLike, unlabelled: ArrayLike, *, confidence: float = 0.95) -> PredictionPowered:
    """The PPI++ mean. ``human`` and ``judge`` [n] belong to the same items; ``unlabelled`` [N] to others.

    Raises:
        UserError: with fewer than two labelled items, or labels that are missing.
    """
    y, f, g = (np.asarray(v, dtype=np.float64) for v in (human, judge, unlabelled))
    if y.shape != f.shape or y.size < 2:
        raise UserError(f"prediction-powered inference needs at least two items with both labels, found {y.size}")
    if any(np.isnan(v).any() for v in (y, f, g)):
        raise UserError("prediction-powered inference: drop and count missing labels first")
    n, many = y.size, g.size
    covariance = float(np.cov(y, f, ddof=1)[0, 1])
    spread = float(np.concatenate([f, g]).var(ddof=1))
    weight = covariance / ((1 + n / many) * spread) if many and spread > 0 else 0.0
    value = float(y.mean() + weight * ((g.mean() if many else 0.0) - f.mean())) if many else float(y.mean())
    variance = float((y - weight * f).var(ddof=1)) / n + (weight**2 * spread / many if many else 0.0)
    error = float(np.sqrt(variance))
    alone = float(y.std(ddof=1) / np.sqrt(n))
    own = float(f.std(ddof=1) * y.std(ddof=1))
    found = interval(value, error, n, n, confidence, bounds=SHARE)
    return PredictionPowered(
        value=value,
        standard_error=error,
        low=found.low,
        high=found.high,
        weight=weight,
        correlation=covariance / own if own > 0 else 0.0,
        n=n,
        judged=many,
        # No more than if people had labelled everything, which is what an error of 0 would pass.
        effective_n=min(n * (alone / error) ** 2, n + many) if error > 0 else float("nan"),
        human_only=float(y.mean()),
        human_only_standard_error=alone,
        judge_only=float(np.concatenate([f, g]).mean()),
        confidence=confidence,
    )


def gain(correlation: float, n: float = 1, judged: float = np.inf) -> float:
    """n_eff / n that a judge of this correlation buys: 1 / (1 - rho^2 N / (n + N)), at most (n + N) / n.

    Missing for a perfect correlation and unlimited labels: where judge and people never differed, nothing says how
    seldom they do.
    """
    share = 1.0 if np.isinf(judged) else judged / (n + judged)
    left = 1 - correlation**2 * share
    return 1 / left if left > ROUNDING else float("nan")
