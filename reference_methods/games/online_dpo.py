"""Online DPO: label pairs of the policy's own samples as it learns, and take DPO steps on them.

    L = -E_{y, y' ~ pi, not differentiated} [p log sigma(m) + (1 - p) log sigma(-m)],    m = beta (h(y) - h(y'))

With preferences of a utility u it leads to pi_ref exp(u / beta). Where they are not, it leads to a policy at which the
implicit Bradley-Terry model agrees on average with the labels of its own samples: not the equilibrium of the game, but
far better than a reward model fitted once.

Paper: Guo et al. (arXiv 2402.04792): beta 0.1, two samples, the SFT policy as reference throughout. Deviation: four
samples a prompt, each in two duels. A response that was cut at the length limit loses to one that ended, in place of
the penalty that its implementations take from the score (``cut_responses_lose: false`` leaves it to the annotator).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from reference_methods.parts.games.losses import Play, pair_cross_entropy
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class OnlineDPO(Game):
    """Trains the policy by DPO on verdicts between its own responses."""

    learns_from_pairs: ClassVar[bool] = True
    table_step: ClassVar[float] = 1.0

    cut_responses_lose: bool = True

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        margin = self.beta * (log_probabilities - play.reference)
        return pair_cross_entropy(margin, play.preferences, play.pair_weights)

    @property
    def gradient_unit(self) -> float:
        return 2 * self.beta
