"""Test-retest: how often people agree with themselves, and the lasting opinion of their own that this tells of.

If a person's second answer to a pair were as independent of the first as another person's, people would agree with
themselves as often as with others. That they agree more is an opinion of their own that lasts: τ o, o ~ N(0, 1), keyed
by person and text. It takes its variance from the margin that all share; (σ', τ) is solved for both agreements.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from annotators.people import channel
from annotators.people.crowd import Group
from farm.base.arrays import Floats
from farm.statistics.uncertainty import Estimate, mean

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def with_oneself(table: pd.DataFrame) -> Estimate:
    """Agreement of the first two votes of the same annotator on the same pair; ``n`` 0 where none was asked twice."""
    both = table[table["first"].notna()].groupby(["item", "annotator"], sort=False)["first"].agg(list)
    pairs = np.array([votes[:2] for votes in both if len(votes) > 1], dtype=np.float64).reshape(-1, 2)
    return mean(1 - np.abs(pairs[:, 0] - pairs[:, 1]))


def agreements(groups: list[Group], scale: float, opinion: float) -> tuple[float, float]:
    """Agreement of two people, and of a person with oneself, where all margins are ``scale`` times as wide."""
    share = np.array([g.share for g in groups]) / sum(g.share for g in groups)
    chances = []
    for group in groups:
        logit = scale * group.spread * _NODES[:, None] + opinion * _NODES[None, :]
        clean = channel.outcomes(logit.ravel(), "logistic", "rao-kupper", group.tie_width)
        seen = channel.noisy(clean, group.flip)
        chances.append(np.stack([seen.first, seen.tie, seen.second]).reshape(3, *logit.shape))
    each = np.stack(chances)  # [groups, 3, margins, opinions]
    own = np.einsum("g,gmo,m,o->", share, _same(each, each, axis=1), _WEIGHTS, _WEIGHTS)
    average = np.einsum("g,gkmo,o->km", share, each, _WEIGHTS)
    return float(_WEIGHTS @ _same(average, average, axis=0)), float(own)


def _same(one: Floats, other: Floats, axis: int) -> Floats:
    """Expected agreement of two independent answers, a tie agreeing by half with either side."""
    first, tie, second = (np.take(one, k, axis) for k in range(3))
    first_2, tie_2, second_2 = (np.take(other, k, axis) for k in range(3))
    return np.asarray(
        first * first_2 + tie * tie_2 + second * second_2
        + 0.5 * (tie * (first_2 + second_2) + tie_2 * (first + second))
    )  # fmt: skip


def opinions(groups: list[Group], observed: float) -> tuple[float, float]:
    """(scale of the margins, τ) that keep the agreement of two people and give the ``observed`` one with oneself."""
    between, own = agreements(groups, 1.0, 0.0)
    if observed <= own:
        return 1.0, 0.0

    def scale(opinion: float) -> float:
        wide = 2.0
        while agreements(groups, wide, opinion)[0] < between and wide < 64:
            wide *= 2
        return float(brentq(lambda s: agreements(groups, s, opinion)[0] - between, 0.05, wide, xtol=1e-3))

    def excess(opinion: float) -> float:
        return agreements(groups, scale(opinion), opinion)[1] - observed

    most = 0.5
    while excess(most) < 0 and most < 16:
        most *= 2
    if excess(most) < 0:
        return scale(most), most
    opinion = float(brentq(excess, 0.0, most, xtol=1e-3))
    return scale(opinion), opinion
