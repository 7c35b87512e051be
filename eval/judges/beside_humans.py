"""The parts of a validation: votes for the same output, majorities, and a judge against the others of each item."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.arrays import Floats
from farm.base.errors import UserError
from farm.statistics.uncertainty import DIFFERENCE, SHARE, Estimate, codes, mean
from farm.votes import agreement as agree
from farm.votes.analysis import FEW

_COMPARED = 6
"""humans up to which every two of them are compared"""


def pairwise_kappas(votes: pd.DataFrame) -> pd.DataFrame:
    """first, second, kappa and n (items that both judged) of every two humans; empty where they are many."""
    names = sorted(votes["annotator"].unique())
    rows = []
    if 1 < len(names) <= _COMPARED:
        wide = votes.pivot_table(index="item", columns="annotator", values="first", aggfunc="first")
        for one, other in combinations(names, 2):
            both = wide[[one, other]].dropna().to_numpy(np.float64)
            if len(both):
                value = agree.kappa_of_votes(both[:, 0], both[:, 1]) if len(both) >= FEW else float("nan")
                rows.append((one, other, value, len(both)))
    return pd.DataFrame(rows, columns=["first", "second", "kappa", "n"])


def of_the_same_output(judge: pd.DataFrame, humans: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables of votes with ``first`` of the same output of every pair.

    This is the canonical one where both files say which output is which, by the same columns or by the models' names;
    else the one that both files have first.

    Raises:
        UserError: where one file does not say which output is which and the other has a pair in both orders.
    """
    sides = judge["sides"].iloc[0], humans["sides"].iloc[0]
    if sides[0] == sides[1] != "":
        return judge, humans
    if all(sides) and "model_1" in judge and "model_1" in humans:
        theirs = humans.drop_duplicates("item").set_index("item")[["model_1", "model_2"]]
        wanted, own = theirs.reindex(judge["item"]).to_numpy(object), judge[["model_1", "model_2"]].to_numpy(object)
        same, turned = (wanted == own).all(axis=1), (wanted == own[:, ::-1]).all(axis=1)
        if (same | turned).all():
            return _turned(judge, turned & ~same), humans
    for votes in (judge, humans):
        mixed = votes.groupby("item")["flipped"].nunique() > 1
        if mixed.any():
            raise UserError(
                f"the pair {mixed.index[int(mixed.to_numpy().argmax())]!r} stands in both orders in one file and the "
                "other does not say which output is which; give both files the texts or the models of the two outputs"
            )
    return _turned(judge, judge["flipped"].to_numpy(bool)), _turned(humans, humans["flipped"].to_numpy(bool))


def _turned(votes: pd.DataFrame, where: NDArray[np.bool_]) -> pd.DataFrame:
    """Votes with the two outputs swapped in these rows."""
    out = votes.assign(first=np.where(where, 1 - votes["first"], votes["first"]))
    for name in ("model", "length", "list"):
        if f"{name}_1" in votes:
            one, two = votes[f"{name}_1"].to_numpy(), votes[f"{name}_2"].to_numpy()
            out[f"{name}_1"], out[f"{name}_2"] = np.where(where, two, one), np.where(where, one, two)
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
    estimate = mean(machine - human, row[kept], confidence=confidence, bounds=DIFFERENCE)
    return estimate, float(machine.mean() / human.mean()) if human.any() else float("nan")


def longer_wins(
    judge: pd.DataFrame, votes: pd.DataFrame, judged: Floats, confidence: float
) -> tuple[Estimate, Estimate]:
    """The null judge that prefers the longer output, whatever it says.

    Args:
        judge, votes: tables of votes with ``first`` of the same outputs; either may have ``length_1, length_2``.
        judged: the judge's rounded verdict on each vote's item, [n].

    Returns:
        How often the null judge agrees with a single human vote, both decisive; and by how much more the judge does,
        where all three are decisive. Missing where the lengths are not known.
    """
    y, item = votes["first"].to_numpy(np.float64), votes["item"].to_numpy()
    source = next((t for t in (judge, votes) if "length_1" in t), None)
    null = np.full(len(votes), 0.5)
    if source is not None:
        lengths = source.drop_duplicates("item").set_index("item")[["length_1", "length_2"]].astype(np.float64)
        gap = (lengths["length_1"] - lengths["length_2"]).reindex(item).to_numpy(np.float64)
        null = (np.sign(np.nan_to_num(gap)) + 1) / 2
    decided = (y != 0.5) & (null != 0.5)
    agrees = (null == y).astype(np.float64)
    own = mean(agrees[decided], item[decided], confidence=confidence, bounds=SHARE)
    all_three = decided & ~np.isnan(judged) & (judged != 0.5)
    more = (judged == y).astype(np.float64) - agrees
    return own, mean(more[all_three], item[all_three], confidence=confidence, bounds=DIFFERENCE)


def largest_majority(item: NDArray[Any], y: Floats) -> int:
    """The largest odd k for which at least a quarter of the items have k + 1 decisive votes."""
    row, items = codes(item[y != 0.5])
    total = np.bincount(row, minlength=items)
    if not items:
        return 0
    k = 1
    while (total >= k + 3).mean() >= 0.25:
        k += 2
    return k if (total >= k + 1).any() else 0


def votes_of_large_items(item: NDArray[Any], y: Floats, largest: int) -> NDArray[np.bool_]:
    """Which votes [n] are of items with more than ``largest`` decisive ones."""
    row, items = codes(item)
    total = np.bincount(row[y != 0.5], minlength=items)
    return np.asarray(total[row] > largest)
