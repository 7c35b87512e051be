"""Do two rankings agree, and how sure is one rank? Correlations with intervals, rank intervals, split halves.

A rank correlation has two sources of doubt, and they answer different questions: the instructions (these methods on
all instructions of the kind: :mod:`eval.ranks.true_ranks`) and the methods (other methods of the same kind:
:func:`correlation`). With few methods the second is very wide; it is printed all the same.

All bootstraps are vectorised: a round is a row of multinomial weights, and a keyed generator draws them for clusters in
sorted order, so that the order of rows changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from farm.base import rng
from farm.base.arrays import Floats
from farm.statistics.result import Result


def ranks(values: Floats) -> Floats:
    """Ranks along the last axis, 1 = smallest, ties get the mean rank."""
    return _ranked(values, "average")


def _ranked(values: Floats, ties: Literal["average", "min"]) -> Floats:
    rows = pd.DataFrame(values.reshape(math.prod(values.shape[:-1]), values.shape[-1]))
    return np.asarray(rows.rank(axis=1, method=ties), dtype=np.float64).reshape(values.shape)


def spearman(x: ArrayLike, y: ArrayLike) -> Floats:
    """Spearman's rank correlation along the last axis; NaN where one side is constant. Ties take mean ranks."""
    a = ranks(np.asarray(x, dtype=np.float64))
    b = ranks(np.asarray(y, dtype=np.float64))
    return pearson(a, b)


def pearson(x: ArrayLike, y: ArrayLike) -> Floats:
    """Pearson's correlation along the last axis; NaN where one side is constant."""
    a = np.asarray(x, dtype=np.float64)
    b = np.asarray(y, dtype=np.float64)
    if not a.shape[-1]:
        return np.full(a.shape[:-1], np.nan)
    a = a - a.mean(axis=-1, keepdims=True)
    b = b - b.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(-1) / np.sqrt(np.square(a).sum(-1) * np.square(b).sum(-1)))


def kendall(x: ArrayLike, y: ArrayLike) -> Floats:
    """Kendall's tau-b along the last axis: (concordant - discordant) / sqrt(untied in x * untied in y)."""
    a = np.asarray(x, dtype=np.float64)
    b = np.asarray(y, dtype=np.float64)
    first, second = np.triu_indices(a.shape[-1], 1)
    shape = np.broadcast_shapes(a.shape, b.shape)[:-1]
    a = np.broadcast_to(a, (*shape, a.shape[-1])).reshape(-1, a.shape[-1])
    b = np.broadcast_to(b, (*shape, b.shape[-1])).reshape(-1, b.shape[-1])
    out = np.empty(len(a))
    step = max(1, 2_000_000 // max(first.size, 1))
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        sa = np.sign(a[rows][:, first] - a[rows][:, second])
        sb = np.sign(b[rows][:, first] - b[rows][:, second])
        with np.errstate(invalid="ignore", divide="ignore"):
            out[rows] = (sa * sb).sum(1) / np.sqrt(np.abs(sa).sum(1) * np.abs(sb).sum(1))
    return out.reshape(shape)


_STATISTICS = {"spearman": spearman, "kendall": kendall, "pearson": pearson}


@dataclass(frozen=True)
class Correlation(Result):
    """A correlation of two rankings with an interval for methods drawn from the same population."""

    statistic: str
    value: float
    low: float
    high: float
    n: int
    interval: str = "Fisher z"
    confidence: float = 0.95


def correlation(x: ArrayLike, y: ArrayLike, *, statistic: str = "spearman", confidence: float = 0.95) -> Correlation:
    """A correlation over methods with its interval over methods. ``x`` and ``y`` have shape [M].

    The interval is tanh(artanh r +- z s): s^2 = (1 + r^2/2) / (M - 3) for Spearman (Bonett and Wright 2000),
    0.437 / (M - 4) for Kendall (Fieller, Hartley and Pearson 1957), 1 / (M - 3) for Pearson. A rank correlation moves
    in steps, so a perfect one counts as half a step below one. A bootstrap over methods covers less with few methods.
    Methods that lack either value are left out; with too few for s the interval is missing.
    """
    a, b = (np.asarray(v, dtype=np.float64) for v in (x, y))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"two vectors of one length are needed, not {a.shape} and {b.shape}")
    kept = ~(np.isnan(a) | np.isnan(b))
    a, b = a[kept], b[kept]
    n = int(a.size)
    value = float(_STATISTICS[statistic](a, b)) if n > 1 else float("nan")
    low, high = _fisher(value, n, statistic, confidence)
    return Correlation(statistic, value, low, high, n, confidence=confidence)


def _fisher(value: float, n: int, statistic: str, confidence: float) -> tuple[float, float]:
    lost = 4 if statistic == "kendall" else 3
    if np.isnan(value) or n <= lost:
        return float("nan"), float("nan")
    step = {"spearman": 12 / (n * (n * n - 1)), "kendall": 4 / (n * (n - 1)), "pearson": 0.0}[statistic]
    top = 1 - max(step / 2, 1e-12)
    inside = min(max(value, -top), top)
    spread = {"spearman": 1 + inside**2 / 2, "kendall": 0.437, "pearson": 1.0}[statistic]
    half = float(ndtri((1 + confidence) / 2)) * np.sqrt(spread / (n - lost))
    centre = np.arctanh(inside)
    low = -1.0 if value <= -top else float(np.tanh(centre - half))
    return low, 1.0 if value >= top else float(np.tanh(centre + half))


@dataclass(frozen=True)
class CorrelationDifference(Result):
    """How much better one metric ranks than another, against the same truth and over the same resampled methods."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    n: int
    rounds: int
    seed: int
    confidence: float = 0.95


def correlation_difference(
    first: ArrayLike,
    second: ArrayLike,
    truth: ArrayLike,
    *,
    statistic: str = "spearman",
    rounds: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> CorrelationDifference:
    """corr(first, truth) - corr(second, truth) with a paired bootstrap over methods; all have shape [M]."""
    columns = [np.asarray(v, dtype=np.float64) for v in (first, second, truth)]
    kept = ~np.isnan(np.stack(columns)).any(axis=0)
    a, b, t = (c[kept] for c in columns)
    function = _STATISTICS[statistic]
    index = rng.generator(seed, "methods", a.size).integers(0, a.size, (rounds, a.size))
    drawn = function(a[index], t[index]) - function(b[index], t[index])
    low, high = percentile_interval(drawn, confidence)
    one, two = float(function(a, t)), float(function(b, t))
    return CorrelationDifference(one, two, one - two, low, high, int(a.size), rounds, seed, confidence)


def percentile_interval(drawn: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap draws [B]; missing draws are left out."""
    kept = drawn[~np.isnan(drawn)]
    if not kept.size:
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def cluster_weights(clusters: int, rounds: int, seed: int, purpose: str = "instructions") -> Floats:
    """Bootstrap weights [rounds, clusters]: how often each cluster is drawn. Rows sum to ``clusters``."""
    if clusters < 1:
        return np.zeros((rounds, 0))
    generator = rng.generator(seed, purpose, clusters)
    out = np.empty((rounds, clusters))
    step = max(1, 4_000_000 // clusters)
    for start in range(0, rounds, step):
        size = min(step, rounds - start)
        drawn = generator.integers(0, clusters, (size, clusters))
        drawn += np.arange(size)[:, None] * clusters
        out[start : start + size] = np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters)
    return out


def positions(values: Floats) -> Floats:
    """Ranks along the last axis as a leaderboard gives them: 1 = largest; tied methods share the better rank."""
    filled = np.where(np.isnan(values), -np.inf, values)
    return _ranked(-filled, "min")


def rank_intervals(drawn: Floats, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """The percentile interval of each method's rank from bootstrapped scores [B, M]; both [M], whole ranks."""
    placed = positions(drawn)
    tail = (1 - confidence) / 2
    low = np.quantile(placed, tail, axis=0, method="lower")
    high = np.quantile(placed, 1 - tail, axis=0, method="higher")
    return np.asarray(low), np.asarray(high)


def ranks_from_separation(scores: Floats, separated: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Simultaneous rank intervals [M], [M] from which pairs are separated [M, M] (Mogstad et al. 2024).

    A method cannot rank above those proven better, nor below those proven worse: with jointly valid separations all
    rank intervals hold together.
    """
    better = separated & (scores[:, None] < scores[None, :])
    worse = separated & (scores[:, None] > scores[None, :])
    return 1 + better.sum(axis=1), len(scores) - worse.sum(axis=1)


def tiers(scores: Floats, separated: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The tier of each method [M], 1 the best: a tier goes from its best method down to the last that cannot be told
    apart from that one (``separated`` [M, M]). Methods without a score are in the last."""
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
    out = np.ones(len(scores), dtype=np.int64)
    head, tier = order[0] if len(order) else 0, 1
    for place in order:
        if separated[head, place]:
            head, tier = place, tier + 1
        out[place] = tier
    return out


@dataclass(frozen=True)
class SplitHalf(Result):
    """How well two halves of the data reproduce each other's ranking."""

    statistic: str
    value: float
    """mean over random splits into two halves of the clusters"""
    spearman_brown: float
    """what the whole data would reach against another whole: 2 r / (1 + r); missing for r < 0"""
    low: float
    high: float
    clusters: int
    rounds: int
    seed: int


def spearman_brown(half: float) -> float:
    """What the whole reaches where a half reaches ``half``: 2 r / (1 + r); missing where halves disagree (r < 0)."""
    return 2 * half / (1 + half) if half >= 0 else float("nan")
