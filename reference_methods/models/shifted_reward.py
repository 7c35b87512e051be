"""A reward model with a constant of its own for each prompt: what no pair can tell, turned up as with a dial.

    R(x, y) = r(x, y) + c(x),   c(x) ~ N(0, deviation^2)

Nothing is fitted. The constants are added to the reward model as it is, after its scores were standardised: before,
they would only shrink what is left of r. An optimum does not depend on them, and methods that compare responses to one
prompt learn the same; one with a value network has to learn c(x) first. A response that did not end has a fixed reward,
which is not moved: set ``missing_eos_reward: null`` where these are compared.

Ours; the reward gauge of Pairwise-RL (arXiv 2504.04950).
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.base.bounds import Bounded, NotNegative
from farm.roles.protocols import Learning
from reference_methods.parts.anchored import Shifted
from reference_methods.parts.scored import Scored


@dataclass(frozen=True, kw_only=True)
class ShiftedReward(Scored, Bounded):
    """Moves the reward model."""

    deviation: NotNegative = 2.0
    """of the constants, in units of the reward"""

    def train(self, learning: Learning) -> Shifted:
        return Shifted(self.scorer(learning), self.deviation, learning.seed)
