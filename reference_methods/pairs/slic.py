"""Sequence likelihood calibration from human feedback: a margin between two likelihoods, and no more.

    L = max(0, delta - (log pi(y_w|x) - log pi(y_l|x))) - lambda log pi(y_w|x),   sums over tokens, mean over pairs

There is no reference policy; the second term, maximum likelihood of a good response, keeps the policy a writer.

Paper: Zhao et al. (arXiv 2305.10425), SLiC-HF, eq. 5, in its direct form: the pairs are the annotated ones, and the
target of the second term is the best candidate, here the preferred response (the paper's other choice is the
demonstration). Defaults: delta 1 nat, lambda 0.1, both of our choosing: the paper tunes them.
``anchored: true`` measures the margin from the reference, h(y) = log pi - log pi_ref; beta times that loss with delta
= 1 / beta and lambda = 0 is what TRL calls the hinge loss of DPO. Deviation: a tie asks for the margin both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from farm.base.bounds import Count, NotNegative
from reference_methods.parts.losses import hinge
from reference_methods.parts.pairs import PairMethod, Pairs


@dataclass(frozen=True, kw_only=True)
class SLiC(PairMethod):
    """Trains the policy on ``preferences``."""

    delta: NotNegative = 1.0
    """the margin asked for, in nats"""
    regularisation: NotNegative = 0.1
    """lambda, the weight of the likelihood of the preferred response"""
    anchored: bool = False
    """whether the margin is between log ratios to the SFT policy instead of log-likelihoods"""
    epochs: Count = 2
    learning_rate: NotNegative = 1e-6

    def uses_reference(self) -> bool:
        return self.anchored

    def pair_loss(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        scores = pairs.log_ratio if self.anchored else pairs.log_likelihoods
        margin = scores[0] - scores[1]
        likelihood = pairs.label * pairs.log_likelihoods[0] + (1 - pairs.label) * pairs.log_likelihoods[1]
        return hinge(margin, pairs.label, self.delta) - self.regularisation * likelihood, margin
