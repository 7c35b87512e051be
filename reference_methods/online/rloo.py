"""REINFORCE with a leave-one-out baseline: the other samples of a prompt say what was to be expected of it.

    R_i = r(x, y_i) - beta (log pi_old - log pi_ref)(y_i),   A_i = R_i - mean of R_j over the other j of the prompt
    L = mean over responses of max(-A R, -A clip(R, 1 - clip, 1 + clip)),   R = pi / pi_old of the whole response

On policy (one epoch, one minibatch) this is -A log pi(y), an unbiased gradient of E r - beta KL(pi || pi_ref); it needs
no value network. With more steps a batch, the clipped ratio of whole responses keeps the update near.

Paper: Ahmadian et al. (arXiv 2402.14740); leave-one-out after Kool et al. (2019). Defaults: 4 samples a prompt, one
epoch of two minibatches, beta 0.05. Deviations: the advantages are divided by their standard deviation over the batch
(``whiten``), without which the learning rate would depend on the spread of the rewards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from farm.base.bounds import Count, NotNegative, Several
from farm.roles.protocols import Learning, Policy
from reference_methods.parts.advantages import leave_one_out, whiten
from reference_methods.parts.batches import Batch, index
from reference_methods.parts.losses import clipped_policy_gradient
from reference_methods.parts.online import RATIO_IS_ONE, Online, OnlineTrainer, ratio_metrics
from reference_methods.parts.rollouts import Rollout


@dataclass(frozen=True, kw_only=True)
class RLOO(Online):
    """Trains the policy on groups of its own samples, scored by the reward model."""

    samples_per_prompt: Several = 4
    beta: NotNegative = 0.05
    epochs: Count = 1
    whiten: bool = True
    """whether the advantages are divided by their standard deviation over the batch"""

    def train(self, learning: Learning) -> Policy:
        policy = self.start(learning)
        networks = [(policy, self.learning_rate)]
        with OnlineTrainer(self, learning, "rloo", networks, at_start=RATIO_IS_ONE) as trainer:
            for rollout in trainer.rollouts(policy):
                advantages = self.advantages(rollout)
                for batch in trainer.minibatches(rollout.samples):
                    trainer.update(batch, partial(self.loss, policy, rollout, advantages))
        return policy

    def advantages(self, rollout: Rollout) -> Tensor:
        rewards = rollout.sequence_rewards(self.beta)
        advantages = leave_one_out(rewards, self.samples_per_prompt)
        if self.whiten:
            advantages = whiten(advantages, torch.ones_like(advantages, dtype=torch.bool), shift=False)
        return advantages * rollout.sequence_weights()

    def loss(
        self, policy: Policy, rollout: Rollout, advantages: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        new = policy.log_probabilities(rollout.samples.select(batch.rows), self.temperature)[0].sum(1)
        log_ratio, advantage = new - batch.old(new, rollout.log_probabilities), advantages[index(batch.rows, new)]
        loss = batch.mean(clipped_policy_gradient(log_ratio, advantage, self.clip, self.clip))
        return loss, ratio_metrics(log_ratio, advantage, batch.mean, self.clip, self.clip)
