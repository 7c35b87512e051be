"""Small regret in every group at once: sleeping experts, one for each of several intersecting groups.

    rounds     y = (common + persona + topic) . x + noise,  x ~ N(0, 1)^d; a persona and a topic in each round
    groups     everyone, each persona, each topic: a round is in three of them
    expert     an online ridge regression of the rounds of its group, each forecast made before the answer is seen
    global     the expert of everyone alone
    sleeping   the mean of the experts of the groups that hold the round, with weights
               log w_g -= eta (loss_g - loss of the mean), of those experts only; losses squared, / 30, at most 1
    regret     squared loss in the rounds of a group less that of the best line of the group in hindsight, a round

Paper: Oracle-efficient algorithms for groupwise regret (Acharya et al., arXiv 2310.04652), on the wrapper of Blum and
Lykouris (sleeping experts). Users' answers to arms in place of the paper's insurance and census data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.arrays import Bools, Floats
from farm.base.bounds import Bounded, Count, NotNegative, Positive, Share

GROUPS = ("everyone", "persona 1", "persona 2", "topic 1", "topic 2")
LARGEST = 30.0
"""a squared loss of so much counts 1 in the weights"""


@dataclass(frozen=True)
class Groupwise(Bounded):
    """Table ``regret``: ``method``, ``group`` and ``regret``, a row each."""

    differences: NotNegative = 1.0
    """standard deviation of what is a persona's or a topic's own, in each feature; 0 is no group at all"""
    rounds: Count = 4000
    dimensions: Count = 5
    noise: NotNegative = 0.5
    share: Share = 0.7
    """of the first persona; topics have one half each"""
    eta: Positive = 0.5
    ridge: Positive = 1.0

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        x, y, inside = self.drawn(rng.generator(seed, "groupwise regret"))
        forecasts = self.experts(x, y, inside)
        found = {"global": forecasts[:, 0], "sleeping": self.sleeping(forecasts, y, inside)}
        best = [best_line(x[rows], y[rows]) for rows in inside.T]
        rows = [
            {"method": method, "group": group, "regret": (np.square(forecast - y)[inside[:, g]]).mean() - best[g]}
            for method, forecast in found.items()
            for g, group in enumerate(GROUPS)
        ]
        return {"regret": pd.DataFrame(rows)}

    def drawn(self, draws: np.random.Generator) -> tuple[Floats, Floats, Bools]:
        """Features [T, d], answers [T], and which of :data:`GROUPS` hold each round [T, 5]."""
        common = draws.normal(size=self.dimensions)
        own = self.differences * draws.normal(size=(4, self.dimensions))
        first = np.stack([draws.random(self.rounds) < share for share in (self.share, 0.5)], axis=1)
        inside = np.stack([first[:, 0], ~first[:, 0], first[:, 1], ~first[:, 1]], axis=1)
        x = draws.normal(size=(self.rounds, self.dimensions))
        y = (x * (common + inside @ own)).sum(1) + self.noise * draws.normal(size=self.rounds)
        return x, y, np.c_[np.ones(self.rounds, bool), inside]

    def experts(self, x: Floats, y: Floats, inside: Bools) -> Floats:
        """The forecast of each group's regression, made before the answer, [T, G]; NaN where it sleeps."""
        out = np.full(inside.shape, np.nan)
        for g, rows in enumerate(inside.T):
            inverse, moment = np.eye(x.shape[1]) / self.ridge, np.zeros(x.shape[1])
            for t in np.flatnonzero(rows):
                turned = inverse @ x[t]
                out[t, g] = turned @ moment  # x . (inverse moment)
                inverse -= np.outer(turned, turned) / (1 + x[t] @ turned)
                moment = moment + y[t] * x[t]
        return out

    def sleeping(self, forecasts: Floats, y: Floats, inside: Bools) -> Floats:
        """The forecasts of the mean of the experts that are awake, [T]."""
        log_weight, out = np.zeros(inside.shape[1]), np.empty(len(y))
        for t, awake in enumerate(inside):
            said = forecasts[t, awake]
            weight = np.exp(log_weight[awake] - log_weight[awake].max())
            out[t] = weight @ said / weight.sum()
            losses = np.minimum(np.square(np.r_[said, out[t]] - y[t]) / LARGEST, 1.0)
            log_weight[awake] -= self.eta * (losses[:-1] - losses[-1])
        return out


def best_line(x: Floats, y: Floats) -> float:
    """The mean squared loss of the least-squares fit."""
    fitted, *_ = np.linalg.lstsq(x, y, rcond=None)
    return float(np.square(x @ fitted - y).mean())
