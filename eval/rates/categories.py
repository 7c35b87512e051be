"""Win rates of groups, and which are truly weak: shrunken estimates and Benjamini-Hochberg across groups.

Small groups have extreme raw rates by chance, so a list of the weakest by raw rate is a list of the smallest. A
hierarchical model pulls each group towards the common mean by how noisy it is:

    shrunken_g = B_g mean + (1 - B_g) raw_g,    B_g = SE_g^2 / (SE_g^2 + tau^2)

averaged over what the groups say of tau, the spread of the true rates (:func:`shrink`). A category
may be a path ("writing/creative/outline"): its rows count in every node above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtri

from eval.rates.multiple import benjamini_hochberg
from farm.base.arrays import Floats
from farm.base.errors import UserError, nearest
from farm.statistics.result import Result
from farm.statistics.uncertainty import SHARE, mean, p_values


@dataclass(frozen=True)
class Shrinkage(Result):
    """Group estimates before and after shrinking."""

    raw: Floats
    shrunken: Floats
    standard_error: Floats
    """of the shrunken estimates (posterior spread)"""
    centre: float
    spread: float
    """tau: how much groups truly differ (posterior mean)"""

    def table(self) -> pd.DataFrame:
        return pd.DataFrame({"raw": self.raw, "shrunken": self.shrunken, "standard_error": self.standard_error})

    def settings(self) -> dict[str, Any]:
        return {"centre": self.centre, "tau": self.spread}


def shrink(raw: ArrayLike, standard_errors: ArrayLike) -> Shrinkage:
    """Estimates of groups with known standard errors, drawn towards their centre; both [G].

    theta_g ~ N(mu, tau^2), x_g ~ N(theta_g, s_g^2), flat priors on mu and on tau (Gelman 2006), averaged over a grid of
    tau: plugging in one tau leaves its uncertainty out, and such intervals covered 82 to 94 %. The errors must not go
    with the rates.
    """
    x = np.asarray(raw, dtype=np.float64)
    v = np.square(np.asarray(standard_errors, dtype=np.float64))
    # A group whose rows all agree has no spread of its own: give it the largest honest one instead of certainty.
    known = np.isfinite(v) & (v > 0)
    v = np.where(known, v, v[known].max() if known.any() else 0.25)

    if len(x) == 1:
        return Shrinkage(x, x.copy(), np.sqrt(v), float(x[0]), 0.0)
    tau = np.linspace(0, 3 * max(float(x.std()), float(np.sqrt(v).mean())), 121)
    total = v + np.square(tau)[:, None]  # [grid, G]
    precision = (1 / total).sum(axis=1)
    centre = (x / total).sum(axis=1) / precision
    logs = -0.5 * (np.log(precision) + np.log(total).sum(axis=1) + (np.square(x - centre[:, None]) / total).sum(axis=1))
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    pull = v / total
    mean_given = pull * centre[:, None] + (1 - pull) * x
    variance_given = v * (1 - pull) + np.square(pull) / precision[:, None]
    shrunken = weight @ mean_given
    error = np.sqrt(weight @ variance_given + weight @ np.square(mean_given - shrunken))
    return Shrinkage(x, shrunken, error, float(weight @ centre), float(weight @ tau))


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
        own = [] if cluster is None else [cluster[members]]
        e = mean(s[members], *own, confidence=confidence, bounds=SHARE)
        p = float(p_values(e.value - target, e.standard_error, max(e.clusters - 1, 1)))
        rows.append(
            {
                "category": node,
                "depth": int(depth),
                "n": e.n,
                "win_rate": 100 * e.value,
                "standard_error": 100 * e.standard_error,
                "low": 100 * e.low,
                "high": 100 * e.high,
                "p": p,
            }
        )
    table = pd.DataFrame(rows)
    if not len(table):
        return table
    for _, group in table.groupby("depth"):
        found = shrink(group["win_rate"] / 100, _pooled_errors(group))
        half = ndtri((1 + confidence) / 2) * found.standard_error
        table.loc[group.index, "shrunken"] = 100 * found.shrunken
        table.loc[group.index, "shrunken_low"] = 100 * np.maximum(found.shrunken - half, 0)
        table.loc[group.index, "shrunken_high"] = 100 * np.minimum(found.shrunken + half, 1)
        table.loc[group.index, "p_bh"] = benjamini_hochberg(group["p"])
    return table.sort_values(["depth", "shrunken", "category"], ignore_index=True)


def by_groups(rows: pd.DataFrame, score: ArrayLike, by: Sequence[str], *, confidence: float = 0.95) -> pd.DataFrame:
    """Groups that may intersect: those of each column of ``by``, and of every two columns what they have in common.

    Args:
        rows: ``instruction``, which clusters, and the columns of ``by``; rows without a value are in no group of it.
        score: [n] in [0, 1], NaN where there is none.

    Returns:
        ``by``, ``group``, and the columns of :func:`by_category`; ``p_bh`` is over all of these groups.

    Raises:
        UserError: for a column that is not there.
    """
    for name in by:
        if name not in rows.columns:
            raise UserError(f"`by`: the verdicts have no column `{name}`; {nearest(name, rows.columns)}")
    values, known = np.asarray(score, dtype=np.float64), ~np.isnan(np.asarray(score, dtype=np.float64))
    parts = []
    for columns in [(name,) for name in by] + list(combinations(by, 2)):
        kept = known & rows[list(columns)].notna().all(axis=1).to_numpy()
        texts = [rows[name][kept].astype(str).str.replace("/", "|") for name in columns]  # a group is no path
        group = texts[0] if len(texts) == 1 else texts[0] + " and " + texts[1]
        found = by_category(values[kept], group, rows["instruction"].to_numpy()[kept], confidence=confidence)
        parts.append(found.rename(columns={"category": "group"}).assign(by=" and ".join(columns)))
    table = pd.concat(parts, ignore_index=True)
    if not len(table):
        return table
    return table.drop(columns="depth").assign(p_bh=benjamini_hochberg(table["p"]))
