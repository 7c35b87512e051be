"""The parts of a validation: votes turned the same way, majorities, and a judge against the others of each item."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.statistics.uncertainty import Estimate, codes, mean
from farm.votes import agreement as agree

Floats = NDArray[np.float64]

FEW = 6
"""humans up to which every two of them are compared"""


def pairwise_kappas(votes: pd.DataFrame) -> pd.DataFrame:
    names = sorted(votes["annotator"].unique())
    rows = []
    if 1 < len(names) <= FEW:
        wide = votes.pivot_table(index="item", columns="annotator", values="first", aggfunc="first")
        for one, other in combinations(names, 2):
            shared = int((wide[one].notna() & wide[other].notna()).sum())
            if shared:
                rows.append((one, other, agree.kappa(wide[one], wide[other]), shared))
    return pd.DataFrame(rows, columns=["first", "second", "kappa", "n"])


def oriented(votes: pd.DataFrame, turned: pd.Series) -> pd.DataFrame:
    """Votes with the two sides exchanged for the items that ``turned`` marks."""
    flip = turned.reindex(votes["item"]).to_numpy(bool)
    out = votes.assign(
        first=np.where(flip, 1 - votes["first"], votes["first"]),
        flipped=votes["flipped"].to_numpy(bool) ^ flip,
    )
    for name in ("model", "length", "list"):
        if f"{name}_1" in votes:
            one, two = votes[f"{name}_1"].to_numpy(), votes[f"{name}_2"].to_numpy()
            out[f"{name}_1"], out[f"{name}_2"] = np.where(flip, two, one), np.where(flip, one, two)
    return out


def majorities(votes: pd.DataFrame, verdict: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The majority of each item's votes (1, 0, or 1/2 when even) and the judge's rounded verdict, by item."""
    balance = (votes["first"] - 0.5).groupby(votes["item"]).sum()
    majority = (np.sign(balance.round(9)) + 1) / 2
    judged = verdict.reindex(majority.index)
    return majority, (np.sign(judged - 0.5) + 1) / 2


def against_others(item: NDArray[Any], y: Floats, judged: Floats, confidence: float) -> tuple[Estimate, float]:
    """Judge minus human against the majority of the item's other votes, on the same left-out votes; and their ratio."""
    decided = (y != 0.5) & ~np.isnan(judged)
    row, _ = codes(item[decided])
    vote, judge = y[decided], judged[decided]
    total = np.bincount(row)
    ones = np.bincount(row, weights=vote)
    others = total[row] - 1
    balance = 2 * (ones[row] - vote) - others
    kept = others > 0
    majority = (np.sign(balance) + 1) / 2
    human = (1 - np.abs(majority - vote))[kept]
    machine = (1 - np.abs(majority - judge))[kept]
    estimate = mean(machine - human, row[kept], confidence=confidence)
    return estimate, float(machine.mean() / human.mean()) if human.size else float("nan")


def largest_majority(item: NDArray[Any], y: Floats) -> int:
    """The largest odd k for which at least a quarter of the items have k + 1 decisive votes."""
    row, items = codes(item[y != 0.5])
    total = np.bincount(row, minlength=items)
    k = 1
    while (total >= k + 3).mean() >= 0.25:
        k += 2
    return k if (total >= k + 1).any() else 0


def votes_of_large_items(item: NDArray[Any], y: Floats, largest: int) -> NDArray[np.bool_]:
    row, items = codes(item)
    total = np.bincount(row[y != 0.5], minlength=items)
    return np.asarray(total[row] > largest)


def pearson_of_votes(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.size > 1 and a.std() > 0 and b.std() > 0 else float("nan")
