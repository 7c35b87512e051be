"""Online identity preference optimisation (IPO): regress the log-ratio on who wins more against the policy itself.

    L = E_{y, y' ~ rho, y'' ~ pi} [(h(y) - h(y') - (P(y > y'') - P(y' > y'')) / beta)^2],   h = log pi/pi_ref

The opponent is held fixed, so the gradient step is one of mirror descent on the regularised game: in the table
theta <- (1 - eta beta) theta + eta beta theta_ref + eta P pi. It converges for small eta and circles for large ones,
which the extragradient (EGPO) mends.

Paper: Calandriello et al. (arXiv 2403.08635); as in EGPO (arXiv 2503.08942). Here rho = pi, from which the samples are.
Deviation: the loss is the above times beta/4, less a constant, so that its scale is that of a preference.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from reference_methods.parts.games.losses import Play, regularised_win_rate
from reference_methods.parts.games.training import Game


@dataclass(frozen=True, kw_only=True)
class OnlineIPO(Game):
    """Trains the policy on how often its own responses win against it."""

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        anchors = [(self.beta, play.reference)]
        return regularised_win_rate(log_probabilities, play.wins, play.weights, anchors)
