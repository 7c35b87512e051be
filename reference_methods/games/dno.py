"""Direct Nash optimisation (DNO): classify pairs of one's own samples by which of them wins more often.

    r_t(y) = P(y > pi_t),    q = sigma(r_t(y_1) - r_t(y_2)),    d = D_t(y_1, y_2) / step_size
    pi_{t+1} = argmin E_{y_1, y_2 ~ pi_t} -[q log sigma(d) + (1 - q) log sigma(-d)],   D_t = difference of log pi/pi_t

The minimiser is exactly pi_t exp(step_size r_t), soft policy iteration: each policy is preferred to the last one at
least half of the time, and where preferences are transitive the last is best. There is no anchor to the reference, so
in a cyclic game the last policy circles and only the average approaches the winner.

Paper: Rosset et al. (arXiv 2404.03715), algorithm 1 with the regression of eq. 8 (its eta is 1/step_size).
Deviations: the practical variant there keeps pairs with a large margin under a judge with a rubric, and adds a
teacher's answers; here the soft targets of all pairs are used and no teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from farm.base.bounds import Positive
from reference_methods.parts.games.losses import Play, differences, pair_cross_entropy, product
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class DNO(Game):
    """Trains the policy to tell which of its own responses wins more often."""

    unused_settings: ClassVar[dict[str, str]] = {"beta": "its loss has no KL to the reference"}
    plays_regularised: ClassVar[bool] = False
    table_step: ClassVar[float] = 0.1
    table_update: ClassVar[Literal["natural gradient", "argmin"]] = "argmin"

    step_size: Positive = 2.0
    """how much a win rate of 1 moves a log-ratio in an iteration, 1/eta"""

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        margin = (log_probabilities - play.start) / self.step_size
        target = torch.sigmoid(differences(play.wins))
        return pair_cross_entropy(margin, target, product(play.weights))
