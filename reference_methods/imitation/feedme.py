"""Binary FeedME: supervised fine-tuning on the preferred responses of the annotated pairs.

    L = - sum over pairs of [p log pi(y_1|x) + (1 - p) log pi(y_2|x)],  per token;  p = 1 where y_1 is preferred

A tie counts half for both responses, and a soft label its share. With pairs of two samples of the policy, the optimum
is 2 pi_ref(y) P(y > pi_ref): the linear part, at step size 2, of the tilt pi_ref exp(eta P(. > pi_ref)).

Paper: AlpacaFarm (arXiv 2305.14387), "Binary FeedME", after OpenAI's name for fine-tuning on highly rated samples.
Settings as in ``sft``, whose loss this is; AlpacaFarm gives none of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.roles.protocols import Learning, Policy, Samples
from reference_methods.imitation.sft import SFT
from reference_methods.parts.preferences import Preferences


@dataclass(frozen=True, kw_only=True)
class FeedME(SFT):
    """Fine-tunes the policy on the preferred side of ``preferences``."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pairs"})

    def train(self, learning: Learning) -> Policy:
        pairs = Preferences.read(learning)
        weights = np.concatenate([pairs.p_first, 1 - pairs.p_first]).astype(np.float64)
        preferred = np.flatnonzero(weights > 0)
        samples = Samples.concatenate([pairs.first, pairs.second]).select(preferred)
        policy = self.start(learning)
        self.imitate(policy, samples, learning, purpose="feedme", weights=weights[preferred])
        return policy
