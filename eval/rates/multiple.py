"""Many comparisons at once: Holm, Benjamini-Hochberg, and simultaneous max-t intervals.

"Do the intervals overlap?" is not a test. Holm controls the chance of any false claim for any dependence,
Benjamini-Hochberg the expected share of false claims among those made, and max-t uses the known covariance of the
estimates, which makes it sharper than Holm where they are correlated (and they are: one baseline, one set of
instructions).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from farm.base import rng
from farm.base.arrays import Floats
from farm.statistics.uncertainty import ROUNDING


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p-values [m] of Holm's step-down procedure (1979); missing ones stay missing and do not count."""
    p, order, kept = _sorted(p_values)
    m = p.size
    adjusted = np.maximum.accumulate((m - np.arange(m)) * p)
    return _unsorted(np.minimum(adjusted, 1), order, kept)


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p-values [m] of Benjamini and Hochberg's step-up procedure (1995)."""
    p, order, kept = _sorted(p_values)
    m = p.size
    adjusted = np.minimum.accumulate((p * m / np.arange(1, m + 1))[::-1])[::-1]
    return _unsorted(np.minimum(adjusted, 1), order, kept)


def _sorted(p_values: ArrayLike) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    p = np.asarray(p_values, dtype=np.float64)
    kept = ~np.isnan(p)
    present = p[kept]
    if ((present < 0) | (present > 1)).any():
        raise ValueError("p-values must lie between 0 and 1")
    order = np.argsort(present, kind="stable")
    return present[order], order, kept


def _unsorted(adjusted: Floats, order: NDArray[np.int64], kept: NDArray[np.bool_]) -> Floats:
    back = np.empty_like(adjusted)
    back[order] = adjusted
    out = np.full(kept.size, np.nan)
    out[kept] = back
    return out


def max_t(
    covariance: ArrayLike,
    contrasts: ArrayLike,
    *,
    estimates: ArrayLike | None = None,
    degrees: float = np.inf,
    confidence: float = 0.95,
    draws: int | None = None,
    seed: int = 0,
) -> tuple[float, Floats]:
    """The critical value that holds for all contrasts at once, and adjusted p-values of ``estimates``.

    Args:
        covariance: [M, M] of the estimates.
        contrasts: [K, M], one row a comparison (for a difference: +1 and -1).
        estimates: [M]; without them the p-values are missing.
        degrees: degrees of freedom of the variance (Student); infinite gives the normal.
        draws: from the joint distribution; by default 20,000, and fewer (2,000 at least) for thousands of contrasts.

    Returns:
        The two-sided critical value c, so that ``contrast ± c * SE`` hold together with probability ``confidence``,
        and the adjusted p-values [K].
    """
    v = np.asarray(covariance, dtype=np.float64)
    a = np.asarray(contrasts, dtype=np.float64)
    error = np.sqrt(np.maximum(np.einsum("km,mn,kn->k", a, v, a), 0))
    usable = error > ROUNDING
    p = np.full(len(a), np.nan)
    if not usable.any():
        return float("nan"), p
    values, vectors = np.linalg.eigh(v)
    root = (a[usable] / error[usable, None]) @ (vectors * np.sqrt(np.maximum(values, 0)))
    draws = draws or int(np.clip(40_000_000 // max(len(root), 1), 2_000, 20_000))
    generator = rng.generator(seed, "max-t")
    largest = np.empty(draws)
    step = max(1, 4_000_000 // max(len(root), 1))
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        z = generator.standard_normal((stop - start, root.shape[1]))
        largest[start:stop] = np.abs(z @ root.T).max(axis=1)
    if np.isfinite(degrees):
        largest /= np.sqrt(generator.chisquare(degrees, draws) / degrees)
    if estimates is not None:
        t = np.abs(a[usable] @ np.asarray(estimates, dtype=np.float64)) / error[usable]
        p[usable] = (1 + (draws - np.searchsorted(np.sort(largest), t, side="left"))) / (draws + 1)
    return float(np.quantile(largest, confidence)), p


def apart(estimates: ArrayLike, covariance: ArrayLike, confidence: float, seed: int = 0) -> NDArray[np.bool_]:
    """Which estimates [M] differ, [M, M], all claims together: the largest |t| of all pairs, drawn under no difference
    from the normal distribution, one row of pairs at a time, so hundreds of estimates take a second and little memory.
    """
    value, v = np.asarray(estimates, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    variance = np.diag(v)[:, None] + np.diag(v)[None, :] - 2 * v
    error = np.sqrt(np.maximum(variance, 0))
    usable = error > ROUNDING
    inverse = np.where(usable, 1 / np.where(usable, error, 1.0), 0.0)
    values, vectors = np.linalg.eigh(v)
    z = rng.generator(seed, "tiers").standard_normal((2_000, len(values)))
    drawn = (z * np.sqrt(np.maximum(values, 0))) @ vectors.T
    largest = np.zeros(len(drawn))
    for k in range(len(value) - 1):
        t = np.abs(drawn[:, k + 1 :] - drawn[:, [k]]) * inverse[k, k + 1 :]
        np.maximum(largest, t.max(axis=1), out=largest)
    limit = float(np.quantile(largest, confidence))
    return np.asarray(usable & (np.abs(value[:, None] - value[None, :]) > limit * error))


def all_differences(m: int) -> Floats:
    """The contrasts of all pairs of m estimates, [m(m-1)/2, m], first minus second in the order (0,1), (0,2), ..."""
    first, second = np.triu_indices(m, 1)
    out = np.zeros((first.size, m))
    rows = np.arange(first.size)
    out[rows, first] = 1
    out[rows, second] = -1
    return out
