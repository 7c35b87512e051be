"""Labels that are seen only where one accepts: a greedy learner never finds out that it was wrong to reject.

    two kinds of cases with P(y = 1) of .7 and .6; to accept costs 1 - 2 y, which is then seen, to reject costs 0
    greedy     accepts a kind whose estimate is above 1/2; estimates begin at a prior worth ten cases
    exp2       draws one of the four policies (accept or reject each kind) with probability ~ exp(-eta times its summed
               costs), each seen cost over the probability that it would be seen, and explores in .05 of the cases
    regret     expected cost less that of the best policy

The cost of rejecting is known, so the feedback is that of a semi-bandit although labels are one-sided.

Paper: Bechavod and Roth (arXiv 2206.04475): no regret in accuracy and fairness at once with one-sided feedback; a panel
softens the bias of one auditor. Ours: the accuracy half.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.base.arrays import Bools, Floats
from farm.base.bounds import Bounded, Count, NotNegative, Positive, PositiveShare

POLICIES = np.array(list(product((0.0, 1.0), repeat=2)))
"""whether each of the four accepts each kind, [4, 2]"""


@dataclass(frozen=True)
class OneSided(Bounded):
    """Table ``regret``: ``method``, ``step`` and ``regret`` of each case."""

    prior: tuple[float, float] = (0.7, 0.4)
    """what the greedy learner believes of the two kinds at the beginning"""
    truth: tuple[float, float] = (0.7, 0.6)
    weight: Positive = 10.0
    """cases that the prior is worth"""
    cases: Count = 1000
    eta: NotNegative = 0.05
    exploration: PositiveShare = 0.05

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws = rng.generator(seed, "one-sided")
        kind = draws.integers(0, 2, self.cases)
        label = draws.random(self.cases) < np.array(self.truth)[kind]
        cost, coins = np.where(label, -1.0, 1.0), draws.random(self.cases)
        gain = 2 * np.array(self.truth) - 1
        best = np.maximum(gain, 0)[kind]
        rows = []
        for method, accepts in (("greedy", self.greedy(kind, label)), ("exp2", self.exp2(kind, cost, coins))):
            regret = best - accepts * gain[kind]
            rows.append(pd.DataFrame({"method": method, "step": np.arange(self.cases), "regret": regret}))
        return {"regret": pd.concat(rows, ignore_index=True)}

    def greedy(self, kind: NDArray[np.int64], label: Bools) -> Floats:
        """Whether each case is accepted, [T]."""
        good, seen = self.weight * np.array(self.prior), np.full(2, self.weight)
        accepted = np.zeros(len(kind))
        for t, k in enumerate(kind):
            accepted[t] = good[k] / seen[k] > 0.5
            if accepted[t]:
                good[k] += label[t]
                seen[k] += 1
        return accepted

    def exp2(self, kind: NDArray[np.int64], cost: Floats, coins: Floats) -> Floats:
        """The probability that each case is accepted, [T]."""
        summed, accepted = np.zeros(len(POLICIES)), np.zeros(len(kind))
        for t, k in enumerate(kind):
            p = np.exp(-self.eta * (summed - summed.min()))
            accepts = POLICIES[:, k]
            chance = (1 - self.exploration) * (p @ accepts) / p.sum() + self.exploration
            if coins[t] < chance:
                summed += accepts * cost[t] / chance
            accepted[t] = chance
        return accepted
