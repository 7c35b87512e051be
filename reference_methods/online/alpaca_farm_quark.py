"""AlpacaFarm's Quark: no tokens and no pool; the best quantile of each batch is learnt from once, and forgotten.

    for each step:  y ~ pi(. | x), scored;  B = the best 1/K of them
                    L = -log pi(y | x) + beta KL(pi(. | x) || pi_ref(. | x)) - entropy H(pi(. | x)),
                    mean over the tokens of minibatches of B

That is online filtered fine-tuning with a KL; with beta 0 it is SuperHF (arXiv 2310.16763). See
:mod:`reference_methods.online.quark` for Quark itself.

Paper: AlpacaFarm (arXiv 2305.14387) and its code; the preset ``alpaca_farm`` has its numbers (K 4, 390 steps
of 512 samples, learning rate 3e-6). The defaults are those of ``quark``.
Deviations: it divides the sum over tokens by all places, padding included, which scales the whole loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from farm.roles.protocols import Learning, Policy
from reference_methods.online.quark import Quark, quantile_of
from reference_methods.parts.online import NO_RATIO, OnlineTrainer


@dataclass(frozen=True, kw_only=True)
class AlpacaFarmQuark(Quark):
    """Has the settings of Quark but ``quantile_texts``."""

    unused_settings: ClassVar[dict[str, str]] = {**NO_RATIO, "quantile_texts": "no quantile is told to the policy"}

    def train(self, learning: Learning) -> Policy:
        policy = self.start(learning)
        with OnlineTrainer(self, learning, "quark", [(policy, self.learning_rate)]) as trainer:
            for rollout in trainer.rollouts(policy):
                quantile = quantile_of(rollout.scores.double().cpu().numpy(), self.quantiles)
                best = rollout.samples.select(np.flatnonzero(quantile == self.quantiles - 1))
                trainer.log(pool=len(best))
                for batch in self.draws(best, learning.seed, trainer.key()):
                    trainer.update(batch, partial(self.loss, policy, learning.reference, best, best))
        return policy
