"""Contrastive preference learning: segments are compared by how likely the policy makes them, without a reward.

    s(y) = alpha sum over tokens log pi(y_t | x, y_<t)                         (with the reference: log pi - log pi_ref)
    L = -log [exp s(y_w) / (exp s(y_w) + exp(bias s(y_l)))],   mean over pairs

People are taken to prefer the segment with the smaller regret, P(y > y') = sigma(sum A*(y) - sum A*(y')). In a problem
with an entropy of weight alpha, A* = alpha log pi*, so that at bias 1 the likeliest policy is the optimal one, and no
reinforcement learning follows. Labels of partial returns are no regrets, and lead elsewhere. A bias below 1 is no
estimator of that model: it keeps the policy near the segments that it has seen.

Paper: Hejna et al. (arXiv 2310.13639), eq. 5 and 8. Defaults of its code: alpha 0.1, bias 0.5, no discount; with the
reference (CPL-KL) alpha 0.2 and bias 0.75. With the reference and bias 1 it is DPO with beta = alpha, and segments are
responses: on texts of one turn it is a DPO without a reference.
Deviations: annotated pairs, where the code compares all segments of a batch; a tie counts half for both sides. Left
out: the discount within a segment (1 in the code), and behaviour cloning before or beside it (start from `sft`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from farm.base.bounds import Count, NotNegative, Positive, PositiveShare
from reference_methods.parts.losses import contrastive
from reference_methods.parts.pairs import PairMethod, Pairs


@dataclass(frozen=True, kw_only=True)
class CPL(PairMethod):
    """Trains the policy on ``preferences``."""

    alpha: Positive = 0.1
    """the weight of the entropy in the problem that people are taken to have in mind"""
    bias: PositiveShare = 0.5
    """how far a segment that is not preferred counts; at 1 the optimum for regrets is the optimal policy"""
    anchored: bool = False
    """whether scores are log ratios to the SFT policy instead of log-likelihoods"""
    epochs: Count = 2
    learning_rate: NotNegative = 1e-6

    def uses_reference(self) -> bool:
        return self.anchored

    def pair_loss(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        first, second = self.alpha * (pairs.log_ratio if self.anchored else pairs.log_likelihoods)
        return contrastive(first, second, pairs.label, self.bias), first - second
