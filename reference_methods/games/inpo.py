"""Iterative Nash policy optimisation (INPO): regress on single verdicts between one's own samples.

    pi_{t+1} = argmin E_{(y_w, y_l) ~ pi_t} [(D(y_w, y_l) - step_size/2)^2]
    D = difference of log pi - a log pi_ref - (1 - a) log pi_t,      a = step_size beta

Only winner and loser are needed, no win rate is estimated. The minimiser is a step of mirror descent on the regularised
game, pi_{t+1} ~ pi_ref^a pi_t^(1 - a) exp(step_size P(. > pi_t)), so the last policy converges to its equilibrium while
the step is small. beta = 0 is multiplicative weights; at pi_t = pi_ref it is IPO.

Paper: Zhang et al. (arXiv 2407.00617), whose eta is 1/step_size and whose tau is beta: three iterations, tau/eta = 1/3.
Deviations: every duel of the group is a pair, instead of the best and the worst of a tournament; a tie is halfway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from farm.base.bounds import Positive
from reference_methods.parts.games.losses import Play, pair_regression
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class INPO(Game):
    """Trains the policy on verdicts between its own responses, held to the SFT policy and to itself."""

    learns_from_pairs: ClassVar[bool] = True
    table_update: ClassVar[Literal["natural gradient", "argmin"]] = "argmin"

    step_size: Positive = 2.0
    """how much a preference of 1 moves a log-ratio in an iteration, 1/eta"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step_size * self.beta <= 1 and self.beta > 0:
            raise ValueError(f"step_size beta must be at most 1, not {self.step_size * self.beta:g}")

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        share = self.step_size * self.beta
        log_ratio = log_probabilities - (share * play.reference + (1 - share) * play.start)
        return pair_regression(log_ratio, self.step_size * (play.preferences - 0.5), play.pair_weights)
