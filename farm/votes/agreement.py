"""How far annotators agree: with each other, with a majority, beyond chance. Votes may be missing or tied.

``first`` is the share of a vote for the first output: 1, 0, or 1/2 for a tie. The agreement of two votes is
1 - |a - b|, so that a tie agrees by half with either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from farm.base.arrays import Floats
from farm.statistics.result import Result
from farm.statistics.uncertainty import SHARE, Codes, Estimate, codes, mean


def kappa(first: ArrayLike, second: ArrayLike, *, chance: Literal["margins", "half"] = "margins") -> float:
    """Cohen's kappa (po - pe) / (1 - pe) of two label vectors [n]; pairs with a missing label are left out.

    ``chance="half"`` is for shares of the first output, of which only the decisive ones count (1 and 0, and no ties),
    and sets pe = 1/2, which is right when the order of the two outputs was drawn at random.
    """
    a, b = pd.Series(first), pd.Series(second)
    both = (a.notna() & b.notna()).to_numpy()
    a, b = a[both].to_numpy(), b[both].to_numpy()
    if chance == "half":
        decided = (a != 0.5) & (b != 0.5)
        a, b = a[decided], b[decided]
    if not a.size:
        return float("nan")
    observed = float((a == b).mean())
    if chance == "half":
        return 2 * observed - 1
    labels = np.unique(np.concatenate([a, b]))
    share_a = np.array([(a == x).mean() for x in labels])
    share_b = np.array([(b == x).mean() for x in labels])
    expected = float(share_a @ share_b)
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def kappa_of_votes(first: Floats, second: Floats) -> float:
    """Cohen's kappa of shares of the first output [n] with the margins of both orders, each pair counted in either.

    So it does not matter which output of a pair is called first.
    """
    return kappa(np.concatenate([first, 1 - first]), np.concatenate([second, 1 - second]))


def alpha_of_votes(item: ArrayLike, first: Floats) -> tuple[float, int]:
    """Krippendorff's nominal alpha of shares of the first output [n], each pair counted in either order, and over how
    many items with several votes."""
    row, items = codes(np.asarray(item))
    counts, values = value_counts(np.concatenate([row, row + items]), np.concatenate([first, 1 - first]))
    return alpha(counts, values), int((counts.sum(axis=1) > 1).sum()) // 2


def correlation_of_votes(first: Floats, second: Floats) -> float:
    """Pearson's correlation of shares of the first output [n], each pair in either order: both means are 1/2."""
    a, b = first - 0.5, second - 0.5
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")


def value_counts(item: ArrayLike, value: ArrayLike) -> tuple[Floats, Floats]:
    """Votes as counts [items, values], with the sorted values [values]; missing votes are left out."""
    x = np.asarray(value, dtype=np.float64)
    seen = ~np.isnan(x)
    values, column = np.unique(x[seen], return_inverse=True)
    row, items = codes(np.asarray(item)[seen])
    table = np.bincount(row * len(values) + column, minlength=items * len(values))
    return table.reshape(items, len(values)).astype(np.float64), values


def alpha(
    counts: Floats, values: Floats, *, level: Literal["nominal", "ordinal", "interval", "ratio"] = "nominal"
) -> float:
    """Krippendorff's alpha from counts [items, values]: 1 - observed / expected disagreement.

    Items with fewer than two votes do not count. Works on counts, so thousands of annotators cost nothing.
    """
    used = counts[counts.sum(axis=1) > 1]
    if not len(used):
        return float("nan")
    m = used.sum(axis=1, keepdims=True)
    coincidence = (used / (m - 1)).T @ used - np.diag((used / (m - 1)).sum(axis=0))
    totals = coincidence.sum(axis=1)
    n = totals.sum()
    v = np.asarray(values, dtype=np.float64)
    if level == "nominal":
        distance = 1.0 - np.eye(len(v))
    elif level == "interval":
        distance = (v[:, None] - v[None, :]) ** 2
    elif level == "ratio":
        with np.errstate(invalid="ignore"):
            distance = np.nan_to_num(((v[:, None] - v[None, :]) / (v[:, None] + v[None, :])) ** 2)
    else:
        middle = np.cumsum(totals) - totals / 2
        distance = (middle[:, None] - middle[None, :]) ** 2
    expected = float((np.outer(totals, totals) - np.diag(totals)).ravel() @ distance.ravel()) / (n - 1)
    observed = float((coincidence * distance).sum())
    return 1 - observed / expected if expected > 0 else float("nan")


@dataclass(frozen=True)
class LeaveOneOut(Result):
    """Each vote against the majority of the item's other votes: the human ceiling."""

    agreement: Estimate
    votes: int
    alone: int
    """votes without another vote to compare with"""
    minimum: int
    weighted_by: str
    lone: str


def leave_one_out(
    item: ArrayLike,
    first: ArrayLike,
    *,
    minimum: int = 2,
    weight: Literal["vote", "item"] = "vote",
    lone: Literal["drop", "half"] = "drop",
    confidence: float = 0.95,
) -> LeaveOneOut:
    """Agreement of each decisive vote with the majority of the item's other decisive votes; a split majority is 1/2.

    Args:
        minimum: decisive votes an item needs to count.
        weight: every vote the same, or every item.
        lone: what a vote without others counts: left out, or one half.
    """
    row, vote, ones, total = decisive(item, first)
    others = total[row] - 1
    balance = 2 * (ones[row] - vote) - others
    with_others = others > 0
    score = np.where(balance == 0, 0.5, (balance > 0) == (vote > 0.5)).astype(np.float64)
    kept = total[row] >= minimum if lone == "drop" else np.ones(len(row), dtype=bool)
    kept &= with_others | (lone == "half")
    score, row = score[kept], row[kept]
    if weight == "item" and score.size:
        sums, number = np.bincount(row, weights=score), np.bincount(row)
        score = sums[number > 0] / number[number > 0]
        estimate = mean(score, confidence=confidence, bounds=SHARE)
    else:
        estimate = mean(score, row, confidence=confidence, bounds=SHARE)
    return LeaveOneOut(estimate, int(kept.sum()), int((~with_others).sum()), minimum, weight, lone)


def decisive(item: ArrayLike, first: ArrayLike) -> tuple[Codes, Floats, Floats, Floats]:
    """Decisive votes: item code [n], vote [n], and the item's ones and total."""
    x = np.asarray(first, dtype=np.float64)
    counted = ~np.isnan(x) & (x != 0.5)
    vote = (x[counted] > 0.5).astype(np.float64)
    row, items = codes(np.asarray(item)[counted])
    ones = np.asarray(np.bincount(row, weights=vote, minlength=items), np.float64)
    return row, vote, ones, np.bincount(row, minlength=items).astype(np.float64)


def majority_curve(item: ArrayLike, first: ArrayLike, largest: int) -> Floats:
    """A_k for k = 1 .. largest: how often the majority of k votes agrees with another vote of the item, in expectation.

    Over items with at least ``largest`` + 1 decisive votes (the same items for every k), each vote left out in turn and
    k of the others drawn without replacement; a split majority is one half.
    """
    from scipy.stats import hypergeom  # a second of import, for this alone

    _, _, ones, total = decisive(item, first)
    enough = total > largest
    pairs, number = np.unique(np.stack([ones[enough], total[enough]]), axis=1, return_counts=True)
    out = np.full(largest, np.nan)
    if not number.size:
        return out
    a, n = pairs
    for k in range(1, largest + 1):
        score = np.zeros(len(a))
        for left_out, share in ((1, a / n), (0, 1 - a / n)):
            others_for = np.maximum(a - left_out if left_out else n - a - 1, 0)
            x = np.arange(k + 1)[:, None]
            chance = hypergeom.pmf(x, (n - 1)[None], others_for[None], k)
            credit = np.where(2 * x > k, 1.0, np.where(2 * x == k, 0.5, 0.0))
            score += share * (chance * credit).sum(axis=0)
        out[k - 1] = float(score @ number / number.sum())
    return out


def worth_votes(judge: float, curve: Floats) -> float:
    """How many human votes a judge is worth: the k whose majority agrees with another human as often as the judge.

    Linear between odd k (an even majority adds nothing); below one vote the excess over a coin counts; infinite where
    the judge exceeds the whole curve.
    """
    odd = curve[::2]
    votes = 1 + 2 * np.arange(len(odd))
    if not odd.size or np.isnan(odd[0]) or np.isnan(judge):
        return float("nan")
    if judge <= odd[0]:
        return max((judge - 0.5) / (float(odd[0]) - 0.5), 0.0) if odd[0] > 0.5 else float("nan")
    above = np.flatnonzero(odd >= judge)
    if not above.size:
        return float("inf")
    k = int(above[0])
    return float(votes[k - 1] + 2 * (judge - odd[k - 1]) / (odd[k] - odd[k - 1]))
