"""Self-play policy gradient: the plainest way to play the regularised preference game, and the family's baseline.

    gradient = E_{y, y' ~ pi} [grad log pi(y) (P(y > y') - 1/2 - beta log pi(y)/pi_ref(y))]

It is Nash-MD with mixture 0. With small steps it converges to the regularised equilibrium, since the KL makes the game
strongly monotone; with large ones it circles.

Paper: the baseline SP of Munos et al. (arXiv 2312.00886). The opponents are the other samples of the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from farm.base.bounds import NotNegative
from reference_methods.parts.games.losses import Play, policy_gradient
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class SelfPlay(Game):
    """Trains the policy by policy gradient against itself."""

    clip: NotNegative = 0.2
    """how far the probability ratio of a response counts beyond 1"""

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        return policy_gradient(log_probabilities, play, self.beta, self.clip)
