"""Self-play preference optimisation (SPO): the reward of a sample is the share of one's own other samples it beats.

    r(y_i) = 1/(K - 1) sum_{j != i} P(y_i > y_j),      any policy-gradient method on it

The game is symmetric, so one player without regret is enough: the *average* of the policies approaches the minimax
winner like 1/sqrt(T), the last one circles around it. In the table a step is multiplicative weights,
pi_{t+1} ~ pi_t exp(eta P(. > pi_t)). Rewards have mean 1/2; where preferences come from a utility they rank as it does.

Paper: Swamy et al. (arXiv 2401.04056). ``kl`` 0 as in the paper; above 0 it is self-play of the regularised game.
Deviations: PPO's clipped ratio of whole responses instead of a critic; ``duels`` of the K - 1 comparisons are asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from farm.base.bounds import NotNegative
from reference_methods.parts.games.losses import Play, policy_gradient
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class SPO(Game):
    """Trains the policy with the share of its other samples that a response beats as its reward."""

    unused_settings: ClassVar[dict[str, str]] = {"beta": "its KL to the SFT policy is `kl`"}
    plays_regularised: ClassVar[bool] = False
    table_step: ClassVar[float] = 0.1

    kl: NotNegative = 0.0
    """strength of a KL to the SFT policy in the reward; the paper has none"""
    clip: NotNegative = 0.2
    """how far the probability ratio of a response counts beyond 1"""

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        return policy_gradient(log_probabilities, play, self.kl, self.clip)
