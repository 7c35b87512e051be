"""SuperHF: imitate the best of one's own samples, held to the SFT policy by a forward KL in the loss.

    y*(x) = argmax over i <= n of r(x, y_i),  y_i ~ pi,  for each prompt of a small batch
    L     = mean over tokens of  -log pi(y*_t)  +  beta KL(pi_ref || pi)(. | x, y*_<t)

one optimizer step a minibatch of what was kept. Fitted perfectly, a batch moves the policy to the mixture (pi_best-of-n
+ beta pi_ref) / (1 + beta); again and again, it ends near (delta_best + beta pi_ref) / (1 + beta), so that it never
collapses, and beta says how much of the SFT policy is left (exact for responses of one token).

Paper: Mukobi et al. (arXiv 2310.16763) and its code: the best of 16 completions of each prompt is kept, two prompts a
step, learning rate 2e-5 with cosine decay, beta 0.35 of a KL that is *summed* over the minibatch beside a likelihood
that is *averaged*: 0.7 of the average, the default here.
Deviations: samples are of the whole distribution (the paper's are cut at top-p 0.95); the KL is not clamped at 0, which
it cannot fall below.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from farm.base.bounds import Count, Natural, NotNegative
from farm.policies.batches import of_sampled
from farm.roles.protocols import Learning, Policy, Samples
from farm.roles.work import Texts
from reference_methods.parts import kl
from reference_methods.parts.batches import Batch
from reference_methods.parts.online import NO_RATIO, Online, OnlineTrainer
from reference_methods.parts.optimization import Schedule
from reference_methods.parts.rollouts import Rollout


@dataclass(frozen=True, kw_only=True)
class SuperHF(Online):
    """Trains the policy on the best of its own samples, by the reward model."""

    unused_settings: ClassVar[dict[str, str]] = NO_RATIO

    steps: Natural = 80
    rollouts: Count = 32
    samples_per_prompt: Count = 16
    """of which the best is imitated"""
    beta: NotNegative = 0.7
    """of the KL from the SFT policy, in the loss"""
    epochs: Count = 1
    minibatches: Count = 1
    learning_rate: NotNegative = 2e-5
    schedule: Schedule = "cosine"

    def work(self, prompts: int, pairs: int) -> Texts:  # noqa: ARG002
        """All are read by the reward model and the reference; the best are learned from, with the reference beside."""
        n = self.steps * self.rollouts
        best = self.epochs * n / self.samples_per_prompt
        return Texts(best, 2 * n + best, n)

    def train(self, learning: Learning) -> Policy:
        policy = self.start(learning)
        with OnlineTrainer(self, learning, "superhf", [(policy, self.learning_rate)]) as trainer:
            for rollout in trainer.rollouts(policy):
                best = self.best(rollout)
                for batch in trainer.minibatches(best):
                    trainer.update(batch, partial(self.loss, policy, learning.reference, best))
        return policy

    def best(self, rollout: Rollout) -> Samples:
        """The response of each prompt with the highest score."""
        place = rollout.scores.view(-1, self.samples_per_prompt).argmax(1).cpu().numpy()
        return rollout.samples.select(np.arange(len(place)) * self.samples_per_prompt + place)

    def loss(self, policy: Policy, reference: Policy, best: Samples, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        samples = best.select(batch.rows)
        ours, mask = policy.distributions(samples, self.temperature)
        with torch.no_grad():
            theirs, _ = reference.distributions(samples, self.temperature)
        likelihood = batch.mean(-of_sampled(ours, samples, mask), mask)
        forward = batch.mean(kl.full(theirs, ours), mask)
        return likelihood + self.beta * forward, {"nll": likelihood, "token_kl": forward}
