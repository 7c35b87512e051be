"""Nash-MD: policy gradient against a mixture of the policy and the reference, which pulls it back to the equilibrium.

    gradient = E_{y ~ pi, y' ~ pi'} [grad log pi(y) (P(y > y') - 1/2 - beta log pi(y)/pi_ref(y))]
    pi' ~ pi^(1 - mixture) pi_ref^mixture      token by token on a model, an approximation of the mixture of responses

mixture = 0 is self-play, mixture = 1 reinforcement learning with the reward P(. > pi_ref). In the table, where a step
is a natural-gradient step of size eta and mixture = eta beta, this is the paper's mirror descent

    pi_t^mu ~ pi_t^(1 - eta beta) pi_ref^(eta beta),      pi_{t+1} ~ pi_t^mu exp(eta P(. > pi_t^mu)).

A constant eta stops at a KL of the order eta^2 from the equilibrium, since the opponent stays a mixture;
eta_t = 2 / (beta (t + 2)) converges, KL <= 8 / (beta^2 (T + 1)).

Paper: Munos et al. (arXiv 2312.00886). mixture 0.125 was its best.
Deviations: a batch may be used for several steps, with PPO's clip of the response's probability ratio; the KL enters
through the log-ratio of the whole response (per token it would lose what a token does to later ones).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from farm.base.bounds import NotNegative, Share
from farm.roles.protocols import Policy
from reference_methods.parts.games.losses import Play, policy_gradient
from reference_methods.parts.games.opponents import Mixture, Opponent
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class NashMD(Game):
    """Trains the policy against a mixture of itself and the SFT policy."""

    mixture: Share = 0.125
    """weight of the reference in the opponent, alpha in the paper"""
    clip: NotNegative = 0.2
    """how far the probability ratio of a response counts beyond 1"""

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        return policy_gradient(log_probabilities, play, self.beta, self.clip)

    def in_table(self, step_size: float | None, iteration: int) -> tuple[Game, float]:
        """With no step size given, the falling one of the theory; the mixture is what belongs to the step."""
        if step_size is None:
            step_size = min(2 / (iteration + 2), 1.0) / self.beta if self.beta else 0.1
        return replace(self, mixture=min(step_size * self.beta, 1.0)), step_size

    def opponent(self, learner: Policy, reference: Policy) -> Opponent:
        return Mixture(learner, reference, self.mixture)
