"""Proximal policy optimisation against a reward model, with a value network and a KL penalty in the reward.

    rewards      r_t = -beta (log pi_old - log pi_ref)(y_t);  at the last token also the reward model's score
    advantages   A = GAE(r, V; gamma, lambda), whitened over the tokens of the batch;  G = A + V before whitening
    policy loss  mean over tokens of max(-A R, -A clip(R, 1 - clip, 1 + clip)),  R = pi / pi_old of the token
    value loss   mean over tokens of 1/2 max((V - G)^2, (V_old + clip(V - V_old, -clip, clip) - G)^2)

Maximises E r(x, y) - beta KL(pi || pi_ref); with responses of one token the optimum is pi_ref exp(r / beta) / Z. The KL
is k1 in the reward, whose gradient is that of the reverse KL. A response that did not end gets a fixed reward. At the
start of a run the ratio must be 1 and nothing clipped, which is checked.

Paper: Schulman et al. (arXiv 1707.06347); for language Ziegler et al. (arXiv 1909.08593) and AlpacaFarm (arXiv
2305.14387), whose settings are the defaults: 512 rollouts, 2 epochs of minibatches of 256, learning rate 1e-5 falling
linearly, clip 0.2, gamma 1, beta 0.02 (its coefficient with human labels), the value network a copy of the reward model
with a zero head. It plans 390 steps and picks among the first 80; the default is 80.
Deviations from AlpacaFarm: whitening and means leave padding out; the KL is not clamped at 0 (``kl_estimator:
k1_clamped`` is AlpacaFarm's, and has another optimum); rewards are not whitened, which without padding would only scale
them; lambda is 0.95, not 1; the value network is clipped and stepped apart from the policy, so that under Adam its loss
needs no coefficient. The reward model is standardised, so beta is in units of its spread on SFT samples.
``faithful: alpaca_farm`` brings its quirks back (``alpaca_farm_ppo`` has its numbers too): the clamped KL, and every
response padded to ``max_new_tokens`` (where that is omitted, to the longest of the batch) with the pads in all means
and whitenings, in the returns and in the value loss; rewards are whitened with their mean put back. Two things remain
ours: the pads are seen by later pads, and each network's gradient is clipped by itself. It uses no importance weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from farm.protocols import Learning, Policy, Samples, Scorer
from reference_methods.parts import kl
from reference_methods.parts.advantages import explained_variance, generalised_advantage, whiten
from reference_methods.parts.aggregation import Totals, aggregate
from reference_methods.parts.batches import Rows, in_parts, index
from reference_methods.parts.losses import clipped_policy_gradient, clipped_share, clipped_value
from reference_methods.parts.optimization import Loss, Metrics
from reference_methods.parts.pads import widened, with_pads
from reference_methods.parts.rollouts import Networks, Online, Rollout


@dataclass(frozen=True, kw_only=True)
class PPO(Online):
    """Trains the policy on its own samples, scored by the reward model."""

    needs: ClassVar[frozenset[str]] = frozenset({"reward_model"})

    gamma: float = 1.0
    lam: float = 0.95
    """lambda of the generalised advantage: 1 is the plain return, 0 one step of bootstrapping"""
    value_clip: float | None = 0.2
    value_coefficient: float = 1.0
    """of the value loss; it matters where the value network's gradient is long enough to be clipped"""
    value_learning_rate: float = 1e-5
    faithful: Literal["alpaca_farm"] | None = None
    """repeat what that code does, its quirks included"""

    def train(self, learning: Learning) -> Policy:
        policy, critic = self.start(learning), self.start_critic(learning)

        def build(rollout: Rollout) -> tuple[Loss, Metrics]:
            targets = self._as_alpaca_farm(critic, rollout) if self.faithful else self._targets(critic, rollout)
            explained = explained_variance(targets.old_values, targets.returns, targets.mask)
            return partial(self._loss, policy, critic, rollout, targets), {"explained_variance": explained}

        networks: Networks = [(policy, self.learning_rate), (critic, self.value_learning_rate)]
        self.learn(policy, networks, build, learning, "ppo")
        return policy

    def _targets(self, critic: Scorer, rollout: Rollout) -> _Targets:
        rewards = rollout.token_rewards(self.beta, self.kl_estimator)
        old_values = in_parts(critic.values, rollout.samples, self.micro_batch_tokens, together=True)
        advantages, returns = generalised_advantage(rewards, old_values, rollout.mask, self.gamma, self.lam)
        advantages = whiten(advantages, rollout.mask) * rollout.token_weights()
        return _Targets(rollout.samples, rollout.mask, rollout.log_probabilities, advantages, returns, old_values)

    def _as_alpaca_farm(self, critic: Scorer, rollout: Rollout) -> _Targets:
        """Every response as long as the longest may be: pads have log-probability 0, and values like any token."""
        width = self.max_new_tokens or rollout.mask.shape[1]
        rewards = widened(rollout.token_rewards(self.beta, "k1_clamped"), width)
        everything = torch.ones_like(rewards, dtype=torch.bool)
        samples = with_pads(rollout.samples, width, critic)
        old_values = in_parts(critic.values, samples, self.micro_batch_tokens, together=True)
        rewards = whiten(rewards, everything) + rewards.mean()
        advantages, returns = generalised_advantage(rewards, old_values, everything, self.gamma, self.lam)
        old = widened(rollout.log_probabilities, width)
        return _Targets(samples, everything, old, whiten(advantages, everything), returns, old_values)

    def _loss(
        self, policy: Policy, critic: Scorer, rollout: Rollout, targets: _Targets, rows: Rows, totals: Totals
    ) -> tuple[Tensor, dict[str, Tensor]]:
        new, mask = policy.log_probabilities(rollout.samples.select(rows), self.temperature)
        if self.faithful:
            new, mask = widened(new, targets.mask.shape[1]), targets.mask[index(rows, new)]
            totals = Totals(totals.sequences, totals.sequences * new.shape[1])
        where, width = index(rows, new), new.shape[1]
        old, advantages = targets.log_probabilities[where, :width], targets.advantages[where, :width]
        returns, old_values = targets.returns[where, :width], targets.old_values[where, :width]
        log_ratio = new - old

        def mean(values: Tensor) -> Tensor:
            return aggregate(values, mask, "token_mean", totals)

        policy_loss = mean(clipped_policy_gradient(log_ratio, advantages, self.clip, self.clip))
        value_loss = mean(
            clipped_value(critic.values(targets.samples.select(rows)), returns, old_values, self.value_clip)
        )
        return policy_loss + self.value_coefficient * value_loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "ratio": mean(log_ratio.detach().exp()),
            "clip_fraction": mean(clipped_share(log_ratio, advantages, self.clip, self.clip)),
            "update_kl": mean(kl.k3(old, new.detach())),
        }


@dataclass(frozen=True)
class _Targets:
    """What the update of one batch aims at, [B, T] each."""

    samples: Samples
    """as the value network sees them"""
    mask: Tensor
    log_probabilities: Tensor
    """of the policy that sampled"""
    advantages: Tensor
    returns: Tensor
    old_values: Tensor
