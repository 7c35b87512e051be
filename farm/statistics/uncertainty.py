"""Standard errors and intervals of means when rows are not independent.

Rows that share an instruction (or an annotator) err together; treating them as independent makes intervals too narrow.
With residuals r_i = s_i - w of a mean over n rows and C clusters,

    SE^2 = C / (C - 1) * sum_c (sum_{i in c} r_i)^2 / n^2                    (one way)
    SE^2 = SE_a^2 + SE_b^2 - SE_ab^2                                         (two ways: Cameron, Gelbach, Miller 2011)

and intervals use Student's t with C - 1 degrees of freedom (the smaller C for two ways). Without clusters every row is
its own cluster, which gives the textbook sd / sqrt(n). Student's t is scipy.special's: the numbers of scipy.stats
without its second and more of import, which every command would wait for.

Quantities that lie between bounds, such as shares, have intervals that hold at the bounds too (:func:`limits`): ten
wins of ten are not certainty.

:func:`joint_means` does the same for many methods at once and keeps the covariance between them, so that differences
are paired by cluster wherever two methods share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from farm.base.arrays import Floats
from farm.statistics.result import Result

Codes = NDArray[np.int64]
Bounds = tuple[float, float]

SHARE: Bounds = (0.0, 1.0)
DIFFERENCE: Bounds = (-1.0, 1.0)
"""of two shares"""
ROUNDING = float(np.sqrt(np.finfo(np.float64).eps))
"""A standard error of shares, or of their differences, up to this one is rounding. A variance is a sum over C clusters
of terms of about 1 / C^2 at most, so that the sum may be off by about C eps / C = eps; that of a paired difference is
what two such variances and a covariance leave of each other."""


@dataclass(frozen=True)
class Estimate(Result):
    """A number with its uncertainty. ``low`` and ``high`` bound the interval at ``confidence``; missing where there are
    too few units (fewer than two) to say anything."""

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    clusters: int
    """independent units: the number of clusters, or of rows where no clusters were given"""
    confidence: float = 0.95


def codes(labels: ArrayLike | pd.Series) -> tuple[Codes, int]:
    """Labels as integers 0 .. C-1 in sorted order of the labels, so that the order of rows changes nothing."""
    values = pd.Series(labels)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    found, uniques = pd.factorize(values, sort=True)
    if (found < 0).any():
        raise ValueError(f"row {int(np.flatnonzero(found < 0)[0])}: the cluster label is missing")
    return found.astype(np.int64), len(uniques)


def _one_way(residuals: Floats, labels: Codes, count: int) -> float:
    if count < 2:
        return float("nan")
    sums = np.bincount(labels, weights=residuals, minlength=count)
    return float(count / (count - 1) * np.square(sums).sum() / residuals.size**2)


def mean(
    values: ArrayLike, *clusters: ArrayLike | pd.Series, confidence: float = 0.95, bounds: Bounds | None = None
) -> Estimate:
    """The mean of ``values`` [n] with a standard error clustered in none, one or two ways.

    A two-way variance can come out below the larger one-way variance (even negative) in small samples; the larger
    one-way variance is used then, which is the conservative choice.

    Args:
        bounds: that every value lies between, for an interval that holds there (:func:`limits`).

    Raises:
        ValueError: with missing values, more than two clusterings, or clusterings of another length.
    """
    x = np.asarray(values, dtype=np.float64)
    if np.isnan(x).any():
        raise ValueError("values must not be missing; drop and count them first")
    if len(clusters) > 2:
        raise ValueError("cluster in at most two ways")
    if not x.size:
        nan = float("nan")
        return Estimate(nan, nan, nan, nan, 0, 0, confidence)
    centre = float(x.mean())
    residuals = x - centre
    coded = [codes(c) for c in clusters]
    if any(c.size != x.size for c, _ in coded):
        raise ValueError("clusters must have one label a value")
    if not coded:
        coded = [(np.arange(x.size), x.size)]
    effective = min(_equal_clusters(np.bincount(c, minlength=count)) for c, count in coded)
    if len(coded) == 1:
        variance, units = _one_way(residuals, *coded[0]), coded[0][1]
    else:
        (a, count_a), (b, count_b) = coded
        both, count_both = codes(a * count_b + b)
        first, second = _one_way(residuals, a, count_a), _one_way(residuals, b, count_b)
        variance = max(first + second - _one_way(residuals, both, count_both), first, second)
        units = min(count_a, count_b)
    return interval(
        centre, float(np.sqrt(variance)), x.size, units, confidence, bounds=bounds, effective=float(effective)
    )


def _equal_clusters(sizes: ArrayLike) -> Floats:
    """How many clusters of one size have as large a mean square as clusters of these sizes [C] or [C, M]."""
    n = np.asarray(sizes, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.square(n.sum(axis=0)) / np.square(n).sum(axis=0))


def interval(
    value: float,
    standard_error: float,
    n: int,
    units: int,
    confidence: float = 0.95,
    *,
    bounds: Bounds | None = None,
    effective: float | None = None,
) -> Estimate:
    """A Student interval with ``units - 1`` degrees of freedom around ``value``; :func:`limits` where it has bounds."""
    if bounds is None:
        half = critical(confidence, units - 1) * standard_error if units > 1 else float("nan")
        low, high = value - half, value + half
    else:
        low, high = (float(v) for v in limits(value, standard_error, units, bounds, confidence, effective))
    return Estimate(value, standard_error, low, high, n, units, confidence)


def limits(
    value: ArrayLike,
    standard_error: ArrayLike,
    units: ArrayLike,
    bounds: Bounds = SHARE,
    confidence: float = 0.95,
    effective: ArrayLike | None = None,
    degrees: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Low and high of means [M] of values between two bounds: Wilson's score interval (1927) at the design's size.

    On the scale where the bounds are 0 and 1 a mean p has at most the variance p (1 - p) / C', C' the number of
    clusters (of equal size). The standard error says what part f of that it has, and C' / f takes the place of Wilson's
    n, with Student's t in the place of the normal. Near a bound there is little to estimate f from (where all values
    are the same, nothing), so it counts as 4 p (1 - p) C observations beside one that says f = 1. Far from the bounds
    this is the Student interval.

    Args:
        standard_error: [M], clustered.
        units: [M] clusters; below two there is no interval (NaN).
        effective: [M] clusters of equal size that weigh as much as the unequal ones; ``units`` by default.
        degrees: [M] of freedom of the standard errors; ``units - 1`` by default.
    """
    low, high = bounds
    count = np.asarray(units, dtype=np.float64)
    equal = count if effective is None else np.asarray(effective, dtype=np.float64)
    p = np.clip((np.asarray(value, dtype=np.float64) - low) / (high - low), 0, 1)
    variance = np.square(np.asarray(standard_error, dtype=np.float64) / (high - low))
    most, information = p * (1 - p), 4 * p * (1 - p) * count
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(most > 0, variance * equal / most, 1.0)
        n = equal * (information + 1) / (information * part + 1)
        square = np.square(student(count - 1 if degrees is None else degrees, confidence)) / n
        centre = (p + square / 2) / (1 + square)
        half = np.sqrt(square * most + np.square(square) / 4) / (1 + square)
    few = (count < 2) | np.isnan(variance)
    ends = (np.where(p <= 0, 0.0, np.maximum(centre - half, 0)), np.where(p >= 1, 1.0, np.minimum(centre + half, 1)))
    first, last = (np.where(few, np.nan, low + (high - low) * end) for end in ends)
    return first, last


def difference_limits(
    difference: ArrayLike,
    standard_error: ArrayLike,
    units: ArrayLike,
    confidence: float = 0.95,
    degrees: ArrayLike = (),
) -> tuple[Floats, Floats]:
    """Low and high of differences [M] of shares: Student's, as the p-values beside them, cut at -1 and 1.

    Where every difference is the same (but for :data:`ROUNDING`) there is no standard error to go by, and
    :func:`limits` holds.
    """
    value, error = (np.asarray(v, dtype=np.float64) for v in (difference, standard_error))
    given = np.asarray(degrees, dtype=np.float64)
    half = student(given if given.size else np.asarray(units, dtype=np.float64) - 1, confidence) * error
    ends = limits(value, error, units, DIFFERENCE, confidence)
    cut = np.clip([value - half, value + half], -1, 1)
    low, high = np.where(error > ROUNDING, cut, ends)
    return low, high


def p_values(difference: ArrayLike, standard_error: ArrayLike, degrees: ArrayLike) -> Floats:
    """Two-sided p-values [M] of the hypothesis that a difference of shares is 0, by Student's t.

    Missing where the standard error is missing, or nothing but :data:`ROUNDING`.
    """
    value, error = (np.asarray(v, dtype=np.float64) for v in (difference, standard_error))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(error > ROUNDING, 2 * special.stdtr(degrees, -np.abs(value) / error), np.nan)


def student(degrees: ArrayLike, confidence: float = 0.95) -> Floats:
    """Two-sided critical values [M] of Student's t; below one degree of freedom that of one."""
    return np.asarray(special.stdtrit(np.maximum(np.asarray(degrees, dtype=np.float64), 1), (1 + confidence) / 2))


@cache
def critical(confidence: float, degrees: float = np.inf) -> float:
    """The two-sided critical value of Student's t (the normal for infinite degrees of freedom)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must lie between 0 and 1")
    level = (1 + confidence) / 2
    return float(special.stdtrit(degrees, level) if np.isfinite(degrees) else special.ndtri(level))


@dataclass(frozen=True)
class JointMeans(Result):
    """Means of several methods with the covariance between them.

    ``sums`` and ``counts`` have shape [C, M] (cluster, method): all that a bootstrap over clusters needs.
    """

    methods: tuple[str, ...]
    means: Floats
    covariance: Floats
    sums: Floats
    counts: Floats
    units: Codes
    """clusters that each method appears in, [M]"""

    def table(self) -> pd.DataFrame:
        error = np.sqrt(np.diag(self.covariance))
        return pd.DataFrame(
            {"method": self.methods, "mean": self.means, "standard_error": error, "clusters": self.units}
        )

    def estimate(self, method: int, confidence: float = 0.95, *, bounds: Bounds | None = None) -> Estimate:
        error = float(np.sqrt(self.covariance[method, method]))
        n = int(self.counts[:, method].sum())
        effective = float(_equal_clusters(self.counts[:, method]))
        units = int(self.units[method])
        return interval(float(self.means[method]), error, n, units, confidence, bounds=bounds, effective=effective)

    def limits(self, confidence: float = 0.95, bounds: Bounds = SHARE) -> tuple[Floats, Floats]:
        """Low and high [M] of means of values between two bounds."""
        error = np.sqrt(np.diag(self.covariance))
        return limits(self.means, error, self.units, bounds, confidence, _equal_clusters(self.counts))

    def resampled(self, weights: Floats) -> Floats:
        """Means [B, M] when cluster c is taken ``weights[b, c]`` times."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ self.sums) / (weights @ self.counts))


def joint_means(
    values: ArrayLike,
    methods: ArrayLike | pd.Series,
    clusters: ArrayLike | pd.Series,
    names: Sequence[str] | None = None,
) -> JointMeans:
    """Means by method and their covariance, clustered: V = G'G scaled by C/(C-1), G the summed influences.

    ``values`` [n] must not be missing; ``names`` fixes the order of the methods (default: sorted). For two methods with
    one row a cluster each, the variance of the difference is exactly sd(d)^2 / C, the paired formula.
    """
    x = np.asarray(values, dtype=np.float64)
    labels = pd.Series(methods).astype(str).to_numpy()
    order = list(names) if names is not None else sorted(set(labels))
    column = pd.Index(order).get_indexer(pd.Index(labels)).astype(np.int64)
    if (column < 0).any():
        raise ValueError(f"method {labels[int(np.argmin(column))]} is not among the names")
    row, count = codes(clusters)
    cell = row * len(order) + column
    shape = (count, len(order))
    sums = np.bincount(cell, weights=x, minlength=count * len(order)).reshape(shape).astype(np.float64)
    counts = np.bincount(cell, minlength=count * len(order)).reshape(shape).astype(np.float64)
    totals = counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums.sum(axis=0) / totals
        influence = (sums - means * counts) / totals
    units = (counts > 0).sum(axis=0)
    scale = np.sqrt(np.where(units > 1, units / np.maximum(units - 1, 1), np.nan))
    scaled = influence * scale
    return JointMeans(tuple(order), means, scaled.T @ scaled, sums, counts, units.astype(np.int64))
