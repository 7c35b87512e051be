"""Odds-ratio preference optimisation: fine-tuning on the preferred response, with a penalty for the other.

    L = -l(y_w) - lambda log sigma(log odds(y_w) - log odds(y_l)),   mean over pairs
    l(y) = log pi(y|x) per token,   odds(y) = e^l / (1 - e^l)

No reference policy and no separate SFT. lambda = 0 is FeedME with every response counted alike.

Paper: Hong et al. (arXiv 2403.07691), eqs. 4 to 7; lambda 0.1, learning rate 8e-6. Its SFT term is averaged over
the response's tokens, as here. TRL averages it over prompt and response tokens of the whole batch, so that long
prompts and long responses count more. The paper starts from a base model; here the start is the SFT policy.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from farm.base.bounds import Count, NotNegative
from reference_methods.parts.losses import bradley_terry, log_odds
from reference_methods.parts.pairs import PairMethod, Pairs


@dataclass(frozen=True, kw_only=True)
class ORPO(PairMethod):
    """Trains the policy on ``preferences``."""

    odds_weight: NotNegative = 0.1
    """lambda, the weight of the odds ratio beside the likelihood"""
    epochs: Count = 2
    learning_rate: NotNegative = 8e-6

    def uses_reference(self) -> bool:
        return False

    def pair_loss(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        each = pairs.mean_log_likelihoods
        odds = log_odds(each)
        margin = odds[0] - odds[1]
        likelihood = pairs.label * each[0] + (1 - pairs.label) * each[1]
        return self.odds_weight * bradley_terry(margin, pairs.label) - likelihood, margin
