"""Identity preference optimisation: the margin of each pair is regressed onto a finite target.

    L = (h(y_1) - h(y_2) - (p - 1/2) / tau)^2,   h(y) = log pi(y|x) - log pi_ref(y|x),   mean over pairs

With p = 1 the target is 1 / (2 tau), where DPO's margin would grow without end. For pairs drawn from mu the optimum is
pi_ref exp(P(y > mu) / tau) / Z, bounded even where the preferences are certain, and defined where they go in circles.

Paper: Azar et al. (arXiv 2310.12036), eq. 17; the soft target is its eq. 11. There h is the sum over tokens
(``per_token: false``). The authors have since said that h should be averaged over the tokens of the response, which
TRL's DPOTrainer does (with ``beta`` for tau) and which is the default here; tau does not carry over between the two.
Defaults: tau 0.1; otherwise as in ``dpo``. Deviation: a tie has the target 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from farm.base.bounds import Count, NotNegative, Positive
from reference_methods.parts.losses import squared
from reference_methods.parts.pairs import PairMethod, Pairs


@dataclass(frozen=True, kw_only=True)
class IPO(PairMethod):
    """Trains the policy on ``preferences``."""

    tau: Positive = 0.1
    """strength of the anchor to the SFT policy"""
    per_token: bool = True
    """whether h is the mean over the tokens of a response, or their sum as written in the paper"""
    epochs: Count = 2
    learning_rate: NotNegative = 1e-6

    def pair_loss(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        ratio = pairs.log_ratio / pairs.lengths if self.per_token else pairs.log_ratio
        margin = ratio[0] - ratio[1]
        return squared(margin, (pairs.label - 0.5) / self.tau), margin
