"""Nash-EMA: the policy gradient of Nash-MD against a slow copy of the policy itself.

    gradient = E_{y ~ pi, y' ~ pi'} [grad log pi(y) (P(y > y') - 1/2 - beta log pi(y)/pi_ref(y))]
    theta'_{t+1} = (1 - decay) theta_t + decay theta'_t

Averaging parameters approximates, to first order, the geometric mixture of all past policies; playing against the past
is fictitious play, and damps the cycles of self-play.

Paper: Munos et al. (arXiv 2312.00886). decay = 0 is self-play.
Deviations: as for Nash-MD. The decay default is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor

from farm.base.bounds import NotNegative
from farm.roles.protocols import Policy
from reference_methods.parts.games.losses import Play, policy_gradient
from reference_methods.parts.games.opponents import Average, Opponent
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class NashEMA(Game):
    """Trains the policy against a moving average of itself."""

    decay: Annotated[float, Ge(0), Lt(1)] = 0.75
    """share of the old average that is kept in a step"""
    clip: NotNegative = 0.2
    """how far the probability ratio of a response counts beyond 1"""

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        return policy_gradient(log_probabilities, play, self.beta, self.clip)

    def opponent(self, learner: Policy, reference: Policy) -> Opponent:  # noqa: ARG002 (the role's signature)
        return Average(learner, self.decay)
