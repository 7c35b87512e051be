"""Exploratory preference optimisation (XPO): online DPO against the reference's samples, with optimism.

    L = DPO(y ~ pi against y~ ~ pi_ref; beta) + optimism E_{y~ ~ pi_ref} log pi(y~)

Minimising the second term lowers the likelihood of what the reference already writes, and so raises that of what has
not been tried: deliberate exploration, where sampling alone would wait for luck. optimism = 0 is online DPO with pairs
of policy and reference.

Paper: Xie et al. (arXiv 2405.21046): optimism (its alpha) 1e-5, falling; beta 0.1.
Deviations: the optimism is constant; the pairs are those of the current batch, not of all batches so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from farm.base.bounds import NotNegative
from reference_methods.games.online_dpo import OnlineDPO
from reference_methods.parts.games.losses import Play, mean


@dataclass(frozen=True, kw_only=True)
class XPO(OnlineDPO):
    """Trains the policy by DPO on its responses against those of the SFT policy, with optimism."""

    reference_samples: ClassVar[bool] = True

    optimism: NotNegative = 1e-5

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        untried = mean(log_probabilities, play.reference_weights)
        return super().loss(log_probabilities, play) + self.optimism * untried
