"""General preference optimisation (GPO): SPPO on the raw scores of a general preference model.

    pi_{t+1} = argmin E_{y ~ pi_t} [(log pi/pi_t (y) - step_size s(y > pi_t))^2],   s(y > pi_t) = mean of s(y > y_j)

The score s is antisymmetric (log-odds, not a probability), so its mean over pi_t x pi_t is 0 and the normaliser is 1 to
first order. The game it plays has the payoff s: where preferences are cyclic its winner is in general another than that
of P. With s = P - 1/2 it is SPPO.

Paper: Zhang et al. (arXiv 2410.02197): K = 5 samples, step_size 1000 (its beta is 1/step_size), three iterations.
Deviations: the whole score is used (the code may divide it by a temperature); in the table s is the log-odds of P.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from farm.base.bounds import Positive
from reference_methods.parts.games.losses import Play, regression
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class GPO(Game):
    """Trains the policy on the scores of its own responses against each other."""

    unused_settings: ClassVar[dict[str, str]] = {"beta": "its loss has no KL to the reference"}
    plays_regularised: ClassVar[bool] = False
    table_step: ClassVar[float] = 0.1
    table_update: ClassVar[Literal["natural gradient", "argmin"]] = "argmin"
    uses_scores: ClassVar[bool] = True

    step_size: Positive = 0.5
    """how much a score of 1 moves a log-ratio in an iteration"""

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        return regression(log_probabilities - play.start, self.step_size * play.wins, play.weights)
