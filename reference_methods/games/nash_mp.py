"""Nash mirror prox (Nash-MP): two proximal steps, the second against where the first one led.

    pi_half = argmin P(pi_k > pi)    + beta KL(pi || pi_ref) + 1/step_size KL(pi || pi_k)
    pi_next = argmin P(pi_half > pi) + beta KL(pi || pi_ref) + 1/step_size KL(pi || pi_k)       both from pi_k

Each minimiser has log pi = (beta log pi_ref + log pi_k / step_size + P(. > opponent)) / (beta + 1/step_size) + c, an
implicit step of mirror descent. With the paper's step_size 2 (its eta is 2 beta) and N = 2K queries the last policy is
within (1 + 2 beta)^(-N/2) of the regularised equilibrium in KL, whatever the number of responses.

Paper: Tiapkin et al. (arXiv 2505.19731).
Deviations: on a model each argmin is a few gradient steps on one batch of pi_k's samples, of the regression whose
minimiser is the above and whose first gradient is that of the proximal objective; the paper uses stochastic policy
gradient, and a slow target network for pi_k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from farm.base.bounds import Count, Positive
from farm.roles.protocols import Learning, Policy
from reference_methods.parts.games.losses import Play, regularised_win_rate
from reference_methods.parts.games.trainer import GameTrainer
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class NashMP(Game):
    """Trains the policy in two proximal steps, the second against where the first one led."""

    table_update: ClassVar[Literal["natural gradient", "argmin"]] = "argmin"
    is_extragradient: ClassVar[bool] = True

    step_size: Positive = 2.0
    """how much a preference of 1 would move a log-ratio without the anchors"""
    epochs: Count = 2

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        anchors = [(self.beta, play.reference), (1 / self.step_size, play.start)]
        return regularised_win_rate(log_probabilities, play.wins, play.weights, anchors)

    def train(self, learning: Learning) -> Policy:
        policy = self.start(learning)
        with GameTrainer(self, learning, policy) as trainer:
            for group in trainer.groups():
                here = trainer.snapshot()
                self.improve(trainer, group, trainer.duels(group, policy))  # the first half: where a step would lead
                half_point = policy.copy()
                trainer.restore(here)
                self.improve(trainer, group, trainer.duels(group, half_point))  # from here, against that opponent
        return policy
