"""Binary reward conditioning: learn from both responses of a pair, each under its verdict; then ask for the good one.

    L = - sum over pairs of [log pi(y_w | good, x) + log pi(y_l | bad, x)],  per token;     answers: pi(. | good, x)

With pairs of two samples of the policy, pi(y | good) has the optimum 2 pi_ref(y) P(y > pi_ref), that of FeedME, and
pi(y | bad) the rest, 2 pi_ref(y) (1 - P(y > pi_ref)); their mean is pi_ref.

Paper: AlpacaFarm (arXiv 2305.14387), "Binary Reward Conditioning", after Keskar et al. (CTRL, arXiv 1909.05858), Korbak
et al. (arXiv 2302.08582) and Liu et al. (Chain of Hindsight, arXiv 2302.02676). AlpacaFarm puts a token for the
verdict before the prompt and gives no settings of its own: those of ``sft``, whose loss this is.
Deviations: the verdict is words (``good``, ``bad``) unless special tokens of the tokenizer are named; nothing is added
to the vocabulary. A tie counts half under each verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.roles.protocols import Learning, Policy, Samples
from farm.tables.turns import prefixed
from reference_methods.imitation.sft import SFT
from reference_methods.parts.conditioning import ConditionedPolicy, controllable, with_prompts
from reference_methods.parts.preferences import Preferences


@dataclass(frozen=True, kw_only=True)
class RewardConditioning(SFT):
    """Fine-tunes the policy on both sides of ``preferences``, each after its verdict."""

    good: str = "Good answer. "
    """what stands before the prompt of a preferred response, and of every prompt afterwards"""
    bad: str = "Bad answer. "

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.good == self.bad:
            raise ValueError("good and bad must be different texts")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pairs"})

    def train(self, learning: Learning) -> Policy:
        pairs = Preferences.read(learning)
        policy = controllable(self.start(learning), [self.good, self.bad])
        sides = Samples.concatenate([pairs.first, pairs.second])
        preferred = np.concatenate([pairs.p_first, 1 - pairs.p_first]).astype(np.float64)
        samples = Samples.concatenate(
            [with_prompts(policy, sides, [prefixed(text, p) for p in sides.prompts]) for text in (self.good, self.bad)]
        )
        weights = np.concatenate([preferred, 1 - preferred])
        used = np.flatnonzero(weights > 0)
        self.imitate(policy, samples.select(used), learning, "reward_conditioning", weights[used])
        return ConditionedPolicy(policy, self.good)
