"""Self-play preference optimisation by regression (SPPO): the log-ratio of each response towards its own win rate.

    pi_{t+1} = argmin E_{y ~ pi_t} [(log pi/pi_t (y) - step_size (P(y > pi_t) - 1/2))^2]

It is a step of multiplicative weights with the logarithm of the normaliser taken as step_size/2. For small steps the
minimiser is that step up to the third order; for large ones it is not: early stopping belongs to the method. No pairs
are needed. Without an anchor to the reference the last policy circles in a cyclic game; the average approaches the
winner.

Paper: Wu et al. (arXiv 2405.00675): step_size 1000 (its eta; beta = 1/eta there), K = 5 samples, learning rate 5e-7,
three iterations. The default here is one at which the minimiser means something.
Deviation: all K responses are regressed, each on its own win rate, not only the best and the worst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from farm.base.bounds import Positive
from reference_methods.parts.games.losses import Play, regression
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class SPPO(Game):
    """Trains the log-ratio of each of its own responses towards its win rate."""

    unused_settings: ClassVar[dict[str, str]] = {"beta": "its loss has no KL to the reference"}
    plays_regularised: ClassVar[bool] = False
    table_step: ClassVar[float] = 0.1
    table_update: ClassVar[Literal["natural gradient", "argmin"]] = "argmin"

    step_size: Positive = 2.0
    """how much a win rate of 1 moves a log-ratio in an iteration, eta"""

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        target = self.step_size * (play.wins - 0.5)
        return regression(log_probabilities - play.start, target, play.weights)
