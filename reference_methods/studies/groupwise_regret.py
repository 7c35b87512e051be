"""One online learner for everyone against one that sleeps: small regret in every group, also where groups intersect.

    y_t = x_t . (common + persona + topic) + noise;  each round belongs to everyone, to a persona and to a topic
    global     online ridge regression of all rounds
    sleeping   an online ridge regression for each group; the forecast is the mean of those whose group holds the round,
               by weights w_g, and only those learn:  log w_g -= eta (loss_g - loss of the mixture)
    regret     of a group: mean loss in its rounds less that of the best line for it in hindsight

Losses are squared errors over 30, cut at 1. Time is linear in the groups.

Paper: Acharya et al. (arXiv 2310.04652): oracle-efficient small regret in each of many intersecting groups, through
sleeping experts; errors fall in all groups against one online regression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.base.bounds import Bounded, Count, NotNegative

Floats = NDArray[np.float64]
GROUPS = ("everyone", "persona of 70 %", "persona of 30 %", "first topic", "second topic")
WORST = 30.0
"""squared error that counts as a loss of 1"""


@dataclass(frozen=True)
class GroupwiseRegret(Bounded):
    """Table ``regret``: ``method``, ``group`` and ``regret`` a round."""

    difference: NotNegative = 1.0
    """standard deviation of what a persona and a topic add to the common weights; 0 for groups that do not differ"""
    rounds: Count = 4000
    dimensions: Count = 5
    noise: NotNegative = 0.5
    eta: NotNegative = 0.5

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws = rng.generator(seed, "groupwise regret")
        common = draws.normal(size=self.dimensions)
        personas, topics = self.difference * draws.normal(size=(2, 2, self.dimensions))
        persona, topic = (draws.random(self.rounds) < 0.3).astype(int), (draws.random(self.rounds) < 0.5).astype(int)
        x = draws.normal(size=(self.rounds, self.dimensions))
        y = (x * (common + personas[persona] + topics[topic])).sum(1) + self.noise * draws.normal(size=self.rounds)
        member = np.stack([np.ones(self.rounds, bool), persona == 0, persona == 1, topic == 0, topic == 1])
        lost = {"global": learn(x, y, member[:1], self.eta), "sleeping": learn(x, y, member, self.eta)}
        rows = []
        for name, rounds in zip(GROUPS, member, strict=True):
            line = np.linalg.lstsq(x[rounds], y[rounds], rcond=None)[0]
            best = loss(x[rounds] @ line, y[rounds]).mean()
            rows += [{"method": m, "group": name, "regret": found[rounds].mean() - best} for m, found in lost.items()]
        return {"regret": pd.DataFrame(rows)}


def learn(x: Floats, y: Floats, member: NDArray[np.bool_], eta: float) -> Floats:
    """The loss of each round, [T], of sleeping ridge regressions for groups [G, T]; one group is plain ridge."""
    groups, (rounds, features) = len(member), x.shape
    inverse, moment = np.stack([np.eye(features)] * groups), np.zeros((groups, features))
    log_weights, lost = np.zeros(groups), np.empty(rounds)
    for t in range(rounds):
        awake = np.flatnonzero(member[:, t])
        forecasts = np.einsum("gij,gj,i->g", inverse[awake], moment[awake], x[t])
        weights = np.exp(log_weights[awake] - log_weights[awake].max())
        lost[t] = loss(weights @ forecasts / weights.sum(), y[t])
        log_weights[awake] -= eta * (loss(forecasts, y[t]) - lost[t])
        turned = inverse[awake] @ x[t]  # Sherman and Morrison: the inverse of a matrix plus x x'
        inverse[awake] -= turned[:, :, None] * turned[:, None] / (1 + turned @ x[t])[:, None, None]
        moment[awake] += y[t] * x[t]
    return lost


def loss(forecast: Floats | float, y: Floats | float) -> Floats:
    return np.asarray(np.minimum(np.square(forecast - y) / WORST, 1.0))
