"""Extragradient preference optimisation (EGPO): look where a step would lead, and step against that opponent.

    theta_half = theta - eta grad L(theta; opponent pi_theta)
    theta_next = theta - eta grad L(theta; opponent pi_half)          the gradient is taken at theta both times
    L(theta; pi') = E_{y, y' ~ rho, y'' ~ pi'} [(h(y) - h(y') - (P(y > y'') - P(y' > y'')) / beta)^2]

Only the opponent of the duels changes between the two, so it takes labels, not gradients through the opponent. The last
policy converges linearly to the regularised equilibrium, with steps at which plain descent circles; with noisy labels
to a floor in proportion to their variance. It converges for beta = 0 too, where nothing else of the family does.

Paper: Zhou et al. (arXiv 2503.08942): beta 0.1, learning rate 5e-7, batch 64, rho = pi.
Deviations: with Adam the state of the optimizer is taken back along with the parameters; the loss is scaled by beta/4,
less a constant (see ``online_ipo``). In the second half each response meets fresh samples of the half point, so a step
costs twice the queries of online IPO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from farm.roles.protocols import Learning, Policy
from reference_methods.games.online_ipo import OnlineIPO
from reference_methods.parts.games.trainer import GameTrainer


@dataclass(frozen=True, kw_only=True)
class EGPO(OnlineIPO):
    """Trains the policy against where a first step of its own would lead."""

    is_extragradient: ClassVar[bool] = True
    table_step: ClassVar[float] = 4.0

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
