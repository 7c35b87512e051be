"""Win rates of groups, and which are truly weak: shrunken estimates and Benjamini-Hochberg across groups.

Small groups have extreme raw rates by chance, so a list of the weakest by raw rate is a list of the smallest. Empirical
Bayes pulls each group towards the common mean by how noisy it is:

    shrunken_g = B_g mean + (1 - B_g) raw_g,    B_g = SE_g^2 / (SE_g^2 + tau^2)

with tau^2 by the method of Paule and Mandel (the tau that makes the weighted spread what chance would give). A category
may be a path ("writing/creative/outline"): its rows count in every node above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from eval.multiple import benjamini_hochberg
from farm.statistics.result import Result
from farm.statistics.uncertainty import mean

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shrinkage(Result):
    """Group estimates before and after shrinking."""

    raw: Floats
    shrunken: Floats
    standard_error: Floats
    """of the shrunken estimates (posterior spread)"""
    centre: float
    spread: float
    """tau: how much groups truly differ"""

    def table(self) -> pd.DataFrame:
        return pd.DataFrame({"raw": self.raw, "shrunken": self.shrunken, "standard_error": self.standard_error})

    def settings(self) -> dict[str, Any]:
        return {"centre": self.centre, "tau": self.spread}


def shrink(raw: ArrayLike, standard_errors: ArrayLike) -> Shrinkage:
    """Empirical-Bayes estimates of groups with known standard errors; both [G]. Errors must not go with the rates."""
    x = np.asarray(raw, dtype=np.float64)
    v = np.square(np.asarray(standard_errors, dtype=np.float64))
    # A group whose rows all agree has no spread of its own: give it the largest honest one instead of certainty.
    known = np.isfinite(v) & (v > 0)
    v = np.where(known, v, v[known].max() if known.any() else 0.25)

    def centre_of(tau2: float) -> float:
        w = 1 / (v + tau2)
        return float(w @ x / w.sum())

    def excess(tau2: float) -> float:
        return float((np.square(x - centre_of(tau2)) / (v + tau2)).sum() - (len(x) - 1))

    tau2 = 0.0
    if len(x) > 1 and excess(0.0) > 0:
        tau2 = float(optimize.brentq(excess, 0.0, float(np.square(x - x.mean()).sum() + v.max() + 1)))
    centre = centre_of(tau2)
    pull = v / (v + tau2)
    centre_variance = 1 / (1 / (v + tau2)).sum()
    error = np.sqrt(v * (1 - pull) + pull**2 * centre_variance)
    return Shrinkage(x, pull * centre + (1 - pull) * x, error, centre, float(np.sqrt(tau2)))


def _pooled_errors(groups: pd.DataFrame) -> Floats:
    """Standard errors of groups from the variance of a row that all groups share.

    A group's own error goes with its rate (five losses of five have none), and would be trusted most where it is
    least known.
    """
    n = groups["n"].to_numpy(np.float64)
    variance = n * np.square(groups["standard_error"].to_numpy(np.float64) / 100)
    known = np.isfinite(variance)
    pooled = float((n * variance)[known].sum() / n[known].sum()) if known.any() else 0.25
    return np.asarray(np.sqrt(pooled / n))


def with_parents(category: str, separator: str = "/") -> list[str]:
    """A category with all nodes above it: "a/b/c" becomes ["a", "a/b", "a/b/c"]."""
    parts = category.split(separator)
    return [separator.join(parts[: k + 1]) for k in range(len(parts))]


def by_category(
    score: ArrayLike,
    category: pd.Series,
    clusters: ArrayLike | None = None,
    *,
    against: float | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """One row a category node, weakest (shrunken) first.

    Args:
        score: [n] in [0, 1], no missing values.
        category: [n] names, or paths with "/".
        against: what each node is tested against (default: the mean of all rows).

    Returns:
        category, depth, n, win_rate, low, high, shrunken, shrunken_low, shrunken_high, p, p_bh; rates are percent.
        Nodes of one depth are shrunk together.
    """
    s = np.asarray(score, dtype=np.float64)
    leaf, leaves = pd.factorize(category.astype(str), sort=True)
    order = np.argsort(leaf, kind="stable")
    bounds = np.searchsorted(leaf[order], np.arange(len(leaves) + 1))
    nodes: dict[tuple[int, str], list[int]] = {}
    for k, name in enumerate(leaves):
        for depth, node in enumerate(with_parents(str(name)), start=1):
            nodes.setdefault((depth, node), []).append(k)
    cluster = None if clusters is None else np.asarray(clusters)
    target = float(s.mean()) if against is None else against
    rows = []
    for (depth, node), below in sorted(nodes.items()):
        members = np.concatenate([order[bounds[k] : bounds[k + 1]] for k in below])
        e = mean(s[members], *([] if cluster is None else [cluster[members]]), confidence=confidence)
        t = (e.value - target) / e.standard_error if e.standard_error > 0 else np.nan
        p = 2 * float(stats.t.sf(abs(t), max(e.clusters - 1, 1))) if t == t else np.nan
        rows.append(
            {
                "category": node,
                "depth": int(depth),
                "n": e.n,
                "win_rate": 100 * e.value,
                "standard_error": 100 * e.standard_error,
                "low": 100 * max(e.low, 0.0),
                "high": 100 * min(e.high, 1.0),
                "p": p,
            }
        )
    table = pd.DataFrame(rows)
    if not len(table):
        return table
    for _, group in table.groupby("depth"):
        found = shrink(group["win_rate"] / 100, _pooled_errors(group))
        half = stats.norm.ppf((1 + confidence) / 2) * found.standard_error
        table.loc[group.index, "shrunken"] = 100 * found.shrunken
        table.loc[group.index, "shrunken_low"] = 100 * np.maximum(found.shrunken - half, 0)
        table.loc[group.index, "shrunken_high"] = 100 * np.minimum(found.shrunken + half, 1)
        table.loc[group.index, "p_bh"] = benjamini_hochberg(group["p"])
    return table.sort_values(["depth", "shrunken", "category"], ignore_index=True)
