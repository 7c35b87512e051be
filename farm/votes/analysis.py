"""A judge, or a crowd, as AlpacaEval's evaluators leaderboard describes it: agreement, bias, variance, preferences.

Its definitions (analyze_evaluators): *agreement* is the mean over all pairs of index sets of 1 - |a - b|,
*bias* the error of the mode of a judge's labels against the mode of the humans', *variance* the error of one of its
labels against the mode of its own others; and how often the longer output, the one with a list, or the one shown first
is preferred. Where it draws one of several modes, the mean over them is taken: a draw would depend on which of the two
outputs is called first.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from farm.base.arrays import Floats
from farm.statistics.result import Result
from farm.statistics.uncertainty import SHARE, Estimate, mean

FEW = 10
"""items below which an agreement of sets of labels is not reported: a mean of so few says nothing"""


_LABELS = np.array([1.0, 1.5, 2.0])


def _estimates(votes: Floats) -> list[tuple[Floats, float]]:
    """The Bayes estimator of each item's votes [items, k]: (values [items], probability) of each choice at even splits.

    Labels 1, 1.5 and 2 give the mode, anything else the median; items without a vote give NaN.
    """
    discrete = np.isin(votes, _LABELS) | np.isnan(votes)
    plain = discrete.all(axis=1)
    modes, number = _modes(np.stack([(votes == v).sum(axis=1) for v in _LABELS]))
    values = np.where(plain, modes, _median(votes))
    several = plain.any() and number.max(initial=1) > 1
    return [(value, 1 / 6) for value in values] if several else [(values[0], 1.0)]


def _modes(tally: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """The modes of each item by the votes for each label [3, items]: at six places [6, items], so that each of one, two
    or three modes counts equally, and how many they are [items]."""
    top = (tally == tally.max(axis=0)) & (tally.max(axis=0) > 0)
    number = top.sum(axis=0)
    wanted = np.arange(6)[:, None] % np.maximum(number, 1) + 1
    values = np.full(wanted.shape, np.nan)
    for label, is_top, rank in zip(_LABELS, top, np.cumsum(top, axis=0), strict=True):
        values = np.where(is_top & (rank == wanted), label, values)
    return values, number


def _one_against_the_rest(votes: Floats) -> Floats:
    """Agreement of each vote with the mode of the item's other votes, [K, items], of labels 1, 1.5 and 2 [items, K].

    It follows from the label and the item's tally, so that thousands of votes on an item cost no more than a few.
    """
    index = np.searchsorted(_LABELS, votes)
    tally = np.stack([(votes == v).sum(axis=1) for v in _LABELS])
    one, mixed, number = (np.zeros(tally.shape) for _ in range(3))
    for k, label in enumerate(_LABELS):
        others = tally.copy()
        others[k] -= 1
        modes, number[k] = _modes(others)
        one[k] = 1 - np.abs(label - modes[0])
        for mode in modes:
            mixed[k] = mixed[k] + 1 / 6 * (1 - np.abs(label - mode))
    item = np.arange(len(votes))[:, None]
    several = number[index, item].max(axis=0) > 1
    return np.ascontiguousarray(np.where(several, mixed[index, item], one[index, item]).T)


def _plain(votes: Floats) -> bool:
    return bool(np.isin(votes, _LABELS).all())


def _median(votes: Floats) -> Floats:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # items without a vote
        return np.asarray(np.nanmedian(votes, axis=1))


@dataclass(frozen=True)
class SetAgreement(Result):
    """AlpacaEval's agreement between sets of annotations: the mean over all pairs of index sets of 1 - |a - b|."""

    score: float
    error: float
    standard_error: float
    """over items, averaged over the pairs of sets"""
    items: int
    pairs: int


def votes_matrix(item: ArrayLike, preference: ArrayLike, *, minimum: int = 1) -> tuple[NDArray[np.object_], Floats]:
    """Items with at least ``minimum`` votes, and their votes [items, K] in the order of the rows (NaN where fewer)."""
    x = np.asarray(preference, dtype=np.float64)
    row, uniques = pd.factorize(pd.Series(np.asarray(item)), sort=True)
    place = pd.Series(row).groupby(row).cumcount().to_numpy()
    out = np.full((len(uniques), int(place.max(initial=0)) + 1), np.nan)
    out[row, place] = x
    kept = (~np.isnan(out)).sum(axis=1) >= minimum
    return np.asarray(uniques, dtype=object)[kept], out[kept]


def set_agreement(first: Floats, second: Floats | None, size_1: int, size_2: int) -> SetAgreement:
    """Agreement of the mode of ``size_1`` annotations with that of ``size_2`` others, in expectation at even splits.

    Args:
        first: [items, K] preferences in [1, 2].
        second: [items, L] of another annotator on the same items, or None for the same annotations (then only
            disjoint index sets are compared).
    """
    if second is None and size_1 == 1 and size_2 == first.shape[1] - 1 > 0 and len(first) and _plain(first):
        totals = _one_against_the_rest(first)
        error = totals.std(axis=1, ddof=1) / np.sqrt(len(first)) if len(first) > 1 else np.full(len(totals), np.nan)
        score = float(totals.mean(axis=1).mean())
        return SetAgreement(score, 1 - score, float(error.mean()), len(first), len(totals))
    other = first if second is None else second
    scores, spreads, used = [], [], 0
    estimated = {}

    def estimate(which: int, votes: Floats, index: tuple[int, ...]) -> list[tuple[Floats, float]]:
        if (which, index) not in estimated:
            estimated[(which, index)] = _estimates(votes[:, list(index)])
        return estimated[(which, index)]

    for one in combinations(range(first.shape[1]), size_1):
        for two in combinations(range(other.shape[1]), size_2):
            if second is None and set(one) & set(two):
                continue
            total = np.zeros(len(first))
            for a, weight_a in estimate(0, first, one):
                for b, weight_b in estimate(0 if second is None else 1, other, two):
                    total = total + weight_a * weight_b * (1 - np.abs(a - b))
            total = total[~np.isnan(total)]
            if total.size:
                scores.append(float(total.mean()))
                spreads.append(float(total.std(ddof=1) / np.sqrt(total.size)) if total.size > 1 else float("nan"))
                used = max(used, total.size)
    nan = float("nan")
    if not scores:
        return SetAgreement(nan, nan, nan, 0, 0)
    score = float(np.mean(scores))
    return SetAgreement(score, 1 - score, float(np.mean(spreads)), used, len(scores))


@dataclass(frozen=True)
class AnnotatorAnalysis(Result):
    """A judge as AlpacaEval's evaluators leaderboard describes it; agreement, bias and variance are fractions.

    They are missing where fewer than FEW items have the labels that they need; the number of these stands beside them.
    """

    human_agreement: float
    """one label of the judge against the mode of the humans', averaged over its labels"""
    human_agreement_items: int
    bias: float
    """error of the mode of its labels against the mode of the humans'"""
    bias_items: int
    variance: float
    """error of one of its labels against the mode of its own others"""
    variance_items: int
    prefer_longer: float
    prefer_longer_n: int
    prefer_lists: float
    prefer_lists_n: int
    prefer_first: float
    price_per_1000: float
    seconds_per_1000: float
    labels: int
    items: int
    """with a label"""


def analyze_annotator(
    judge: pd.DataFrame, humans: pd.DataFrame | None = None, *, is_human: bool = False
) -> AnnotatorAnalysis:
    """AlpacaEval's definitions on votes of :mod:`farm.votes.table`, at even splits the mean over the modes.

    They ask for the same number of labels of every item; of other data the items with the commonest number count. A
    judge with one label an item has no bias or variance, as there. ``is_human`` compares humans with each other:
    agreement is one against the rest, and bias is zero by definition.
    """
    nan = float("nan")
    items, own = _alike(judge)
    variance, among = _among(judge)
    agreement, bias, compared, several = nan, nan, 0, 0
    if is_human:
        agreement, bias, compared, several = 1 - variance, 0.0, among, among
    elif humans is not None:
        their_items, theirs = _alike(humans[humans["item"].isin(items)])
        _, a, b = np.intersect1d(items.astype(str), their_items.astype(str), return_indices=True)
        agreement, compared = _if_enough(set_agreement(own[a], theirs[b], 1, theirs.shape[1]))
        if own.shape[1] > 1:
            bias, several = _if_enough(set_agreement(own[a], theirs[b], own.shape[1], theirs.shape[1]))
            bias = 1 - bias
    longer, lists = prefer_longer(judge), prefer_lists(judge)
    labelled = judge["first"].notna()

    def thousand(column: str) -> float:
        return 1000 * float(pd.to_numeric(judge[column], errors="coerce").mean()) if column in judge else nan

    return AnnotatorAnalysis(
        human_agreement=agreement,
        human_agreement_items=compared,
        bias=bias,
        bias_items=several,
        variance=variance,
        variance_items=among,
        prefer_longer=longer.value,
        prefer_longer_n=longer.n,
        prefer_lists=lists.value,
        prefer_lists_n=lists.n,
        prefer_first=float(judge["shown"].mean()),
        price_per_1000=thousand("price"),
        seconds_per_1000=thousand("time"),
        labels=int(labelled.sum()),
        items=int(judge.loc[labelled, "item"].nunique()),
    )


def _alike(votes: pd.DataFrame, minimum: int = 1) -> tuple[NDArray[np.object_], Floats]:
    """The items with the commonest number of votes (of ``minimum`` or more), and these votes, in [1, 2]."""
    seen = votes[votes["first"].notna()]
    items, matrix = votes_matrix(seen["item"].to_numpy(), 2 - seen["first"].to_numpy(np.float64), minimum=minimum)
    number = (~np.isnan(matrix)).sum(axis=1)
    if not number.size:
        return items, np.empty((0, minimum))
    usual = len(tally := np.bincount(number)) - 1 - int(np.argmax(tally[::-1]))  # of two, the larger
    return items[number == usual], matrix[number == usual, :usual]


def _among(votes: pd.DataFrame) -> tuple[float, int]:
    """The error of one label against the mode of the item's others, and over how many items."""
    _, own = _alike(votes, 2)
    agreement, items = _if_enough(set_agreement(own, None, 1, own.shape[1] - 1))
    return 1 - agreement, items


def _if_enough(found: SetAgreement) -> tuple[float, int]:
    """The agreement, missing where it is of too few items; and their number."""
    return found.score if found.items >= FEW else float("nan"), found.items


def prefer_longer(votes: pd.DataFrame, *, beyond: int = 30, confidence: float = 0.95) -> Estimate:
    """P(the longer output is preferred), over one decisive vote a pair whose lengths differ by more than ``beyond``."""
    if "length_1" not in votes:
        return mean(np.empty(0), confidence=confidence)
    unique = votes.drop_duplicates("item")
    difference = unique["length_1"].to_numpy(np.float64) - unique["length_2"].to_numpy(np.float64)
    return _prefer(unique["first"].to_numpy(np.float64), difference, np.abs(difference) > beyond, confidence)


def prefer_lists(votes: pd.DataFrame, *, confidence: float = 0.95) -> Estimate:
    """P(the output with a list is preferred), over one decisive vote a pair where exactly one output has a list."""
    if "list_1" not in votes:
        return mean(np.empty(0), confidence=confidence)
    unique = votes.drop_duplicates("item")
    difference = unique["list_1"].to_numpy(np.float64) - unique["list_2"].to_numpy(np.float64)
    return _prefer(unique["first"].to_numpy(np.float64), difference, difference != 0, confidence)


def _prefer(first: Floats, difference: Floats, wanted: NDArray[np.bool_], confidence: float) -> Estimate:
    used = wanted & ~np.isnan(first) & (first != 0.5)
    return mean(((first > 0.5) == (difference > 0))[used].astype(np.float64), confidence=confidence, bounds=SHARE)
