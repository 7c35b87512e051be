"""Simple preference optimisation: the reward is the mean log-likelihood of a token, without a reference.

    m = beta (l(y_w) - l(y_l)) - gamma,   l(y) = log pi(y|x) per token,     L = -log sigma(m),   mean over pairs

Averaging over tokens takes away what sums give to short responses, and makes the reward what greedy decoding looks at.

Paper: Meng et al. (arXiv 2405.14734), eq. 6: beta 2 to 2.5 and gamma / beta about 0.5, learning rates 3e-7 to 1e-6,
one epoch, batch 128. Nothing keeps the policy near where it started but the learning rate. ``label_smoothing`` as in
cDPO. Deviation: a tie counts half for both sides, each with its gamma.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from farm.base.bounds import Count, ErrorRate, NotNegative
from reference_methods.parts.losses import bradley_terry
from reference_methods.parts.pairs import PairMethod, Pairs


@dataclass(frozen=True, kw_only=True)
class SimPO(PairMethod):
    """Trains the policy on ``preferences``."""

    beta: NotNegative = 2.0
    """scale of the mean log-likelihoods"""
    gamma_over_beta: float = 0.5
    """the margin asked for, in nats per token"""
    label_smoothing: ErrorRate = 0.0
    """the share of labels assumed to be flipped"""
    epochs: Count = 1
    batch_size: Count = 128
    learning_rate: NotNegative = 1e-6

    def uses_reference(self) -> bool:
        return False

    def pair_loss(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        each = pairs.mean_log_likelihoods
        margin, gamma = self.beta * (each[0] - each[1]), self.beta * self.gamma_over_beta
        return bradley_terry(margin, pairs.label, self.label_smoothing, offset=gamma), margin
