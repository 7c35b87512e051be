"""Principles: what votes seem to follow, in a few sentences (Inverse Constitutional AI).

    proposed     from each pair, sentences that would explain its label; sentences that are alike count as one
    voted on     v_ip = 1 where principle p selects the output of pair i that was preferred, -1 the other one,
                 0 where it does not apply, and missing where the vote could not be read; of several rounds of votes
                 only what all agree on counts, anything else as 0
    kept         for > against,   for >= 10 % of all votes,   not half of them unreadable
    constitution in the order of for - against, the first 1.5 n are clustered into n, and the first of each stays

A constitution decides a pair by the first of its principles that applies, or by the sum of all.

Paper: Findeis et al. (arXiv 2406.06560); the filter, its order, the rounds and the second clustering are those of its
code (rdnfn/icai). Deviations: sentences are clustered by their words and principles by their votes, where the code has
k-means on embeddings; of a cluster of sentences the most central one is taken, where the paper lets a model rewrite it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, Share

Rows = NDArray[np.int64]
Rule = Literal["first", "sum"]


@dataclass(frozen=True, kw_only=True)
class Mining(Bounded):
    """How many principles are looked for, and which are kept."""

    n: Count = 5
    """principles of a constitution, at most"""
    per_pair: Count = 2
    """sentences that a pair proposes"""
    clusters: Count = 40
    """kinds of sentences that are voted on, at most"""
    least: Share = 0.1
    """votes for a principle, as a share of all pairs"""
    rule: Rule = "first"
    """what decides a pair: the first principle that applies to it, or the sum of all"""


def unanimous(rounds: Floats) -> Floats:
    """Votes of several rounds [R, N, P] as one [N, P]: what all rounds say, else 0; missing where all are."""
    same = (rounds == rounds[0]).all(axis=0)
    return np.where(np.isnan(rounds).all(axis=0), np.nan, np.where(same, rounds[0], 0.0))


def counted(votes: Floats) -> pd.DataFrame:
    """``votes_for, against, abstain, invalid`` of each principle, from votes [N, P]."""
    columns = {"votes_for": votes == 1, "against": votes == -1, "abstain": votes == 0, "invalid": np.isnan(votes)}
    return pd.DataFrame({name: where.sum(axis=0) for name, where in columns.items()})


def chosen(votes: Floats, mining: Mining) -> Rows:
    """The principles of the constitution, as columns of the votes [N, P], in their order."""
    counts = counted(votes)
    total, net = len(votes), (counts["votes_for"] - counts["against"]).to_numpy()
    enough = (counts["votes_for"] >= mining.least * total) & (2 * counts["invalid"] < total)
    kept = np.flatnonzero((net > 0) & enough.to_numpy()).astype(np.int64)
    first = kept[np.argsort(-net[kept], kind="stable")][: int(1.5 * mining.n)]
    if len(first) <= mining.n:
        return first
    labels = _clusters(np.nan_to_num(votes[:, first]).T, mining.n, "hamming")
    return first[np.sort(np.unique(labels, return_index=True)[1])]


def decided(votes: Floats, rule: Rule) -> Floats:
    """1, -1 or 0 for each pair, from the votes [N, P] of a constitution for the first (1) or second (-1) output; a vote
    that could not be read decides nothing."""
    if rule == "sum" or not votes.shape[1]:
        return np.sign(np.nansum(votes, axis=1))
    return np.nan_to_num(votes[np.arange(len(votes)), deciding(votes)])


def deciding(votes: Floats) -> Rows:
    """The first principle that applies to each pair, [N]; any where none does. A missing vote does not apply."""
    return (np.nan_to_num(votes) != 0).argmax(axis=1).astype(np.int64)


def alike(sentences: Sequence[str], most: int) -> list[str]:
    """The distinct sentences, oftener ones first; of more than ``most`` the central one of each of so many clusters."""
    times = Counter(sentences)
    distinct = [sentence for sentence, _ in times.most_common()]
    if len(distinct) <= most:
        return distinct
    bags = [Counter(word[:5] for word in re.findall(r"\w+", sentence.lower())) for sentence in distinct]
    places = {stem: k for k, stem in enumerate(dict.fromkeys(stem for bag in bags for stem in bag))}
    words = np.zeros((len(bags), len(places) + 1))
    words[:, -1] = 1e-6  # a sentence without a word has a direction, too
    for row, bag in enumerate(bags):
        for stem, count in bag.items():
            words[row, places[stem]] = count
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    labels, weight = _clusters(words, most, "cosine"), np.array([times[sentence] for sentence in distinct])
    central = []
    for label in dict.fromkeys(labels.tolist()):
        rows = np.flatnonzero(labels == label)
        nearest = rows[(words[rows] @ (weight[rows] @ words[rows])).argmax()]
        central.append((int(weight[rows].sum()), distinct[nearest]))
    return [sentence for _, sentence in sorted(central, key=lambda found: -found[0])]


def _clusters(rows: Floats, most: int, metric: str) -> Rows:
    """Labels [n] of at most so many clusters by average linkage."""
    from scipy.cluster.hierarchy import fcluster, linkage

    return np.asarray(fcluster(linkage(rows, "average", metric=metric), most, "maxclust"), np.int64)
