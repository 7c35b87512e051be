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
Deviations from AlpacaFarm: whitening and means leave padding out; the KL is not clamped at 0 (clamped it has another
optimum); rewards are not whitened, which without padding would only scale them; lambda is 0.95, not 1; the value
network is clipped and stepped apart from the policy, so that under Adam its loss needs no coefficient. The reward model
is standardised, so beta is in units of its spread on SFT samples.
``alpaca_farm_ppo`` is AlpacaFarm's own, quirks and all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from farm.base.bounds import NotNegative, Share
from farm.roles.protocols import Learning, Policy, Scorer
from farm.roles.work import Texts
from reference_methods.parts.advantages import explained_variance, generalised_advantage, whiten
from reference_methods.parts.batches import Batch, index
from reference_methods.parts.losses import clipped_policy_gradient, clipped_value
from reference_methods.parts.online import RATIO_IS_ONE, Online, OnlineTrainer, ratio_metrics
from reference_methods.parts.rollouts import Rollout


@dataclass(frozen=True, kw_only=True)
class PPO(Online):
    """Trains the policy on its own samples, scored by the reward model."""

    gamma: Share = 1.0
    lam: Share = 0.95
    """lambda of the generalised advantage: 1 is the plain return, 0 one step of bootstrapping"""
    clip_high: NotNegative | None = None
    """how far the ratio counts above 1; as far as below (``clip``) where omitted"""
    value_clip: NotNegative | None = 0.2
    value_coefficient: NotNegative = 1.0
    """of the value loss; it matters where the value network's gradient is long enough to be clipped"""
    value_learning_rate: NotNegative = 1e-5

    def work(self, prompts: int, pairs: int) -> Texts:  # noqa: ARG002
        """As without a critic, which reads each response once more and learns as the policy does."""
        n = self.steps * self.rollouts
        return Texts(2 * self.epochs * n, 3 * n, n)

    def train(self, learning: Learning) -> Policy:
        policy, critic = self.start(learning), self.start_critic(learning)
        networks = [(policy, self.learning_rate), (critic, self.value_learning_rate)]
        with OnlineTrainer(self, learning, "ppo", networks, at_start=RATIO_IS_ONE) as trainer:
            for rollout in trainer.rollouts(policy):
                old_values = trainer.compute(critic.values, rollout.samples)
                targets = self.targets(rollout, old_values)
                trainer.log(explained_variance=explained_variance(old_values, targets.returns, rollout.mask))
                for batch in trainer.minibatches(rollout.samples):
                    trainer.update(batch, partial(self.loss, policy, critic, rollout, targets))
        return policy

    def targets(self, rollout: Rollout, old_values: Tensor) -> Targets:
        rewards = rollout.token_rewards(self.beta)
        advantages, returns = generalised_advantage(rewards, old_values, rollout.mask, self.gamma, self.lam)
        return Targets(whiten(advantages, rollout.mask) * rollout.token_weights(), returns, old_values)

    def loss(
        self, policy: Policy, critic: Scorer, rollout: Rollout, targets: Targets, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        samples = rollout.samples.select(batch.rows)
        new, mask = policy.log_probabilities(samples, self.temperature)
        where, width = index(batch.rows, new), new.shape[1]
        old, advantages = batch.old(new, rollout.log_probabilities), targets.advantages[where, :width]
        returns, old_values = targets.returns[where, :width], targets.old_values[where, :width]
        mean, high = partial(batch.mean, mask=mask), self.clip if self.clip_high is None else self.clip_high
        policy_loss = mean(clipped_policy_gradient(new - old, advantages, self.clip, high))
        value_loss = mean(clipped_value(critic.values(samples), returns, old_values, self.value_clip))
        return policy_loss + self.value_coefficient * value_loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            **ratio_metrics(new - old, advantages, mean, self.clip, high),
        }


@dataclass(frozen=True)
class Targets:
    """What the updates on one batch of rollouts aim at, [B, T] each."""

    advantages: Tensor
    returns: Tensor
    old_values: Tensor
    """of the value network that the batch began with"""
