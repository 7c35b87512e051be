"""MaxMin-RLHF: the policy is trained for the group of users that is worst off, which may be another in every batch.

    max over pi of min over z of E r_z(x, y) - beta KL(pi || pi_ref)

    F_z = mean of r_z over the batch,    z* = argmin of F_z,    a step of RLOO with the reward r_z*

The rewards are those of a mixture (`mixture_reward_model`), each with mean 0 and standard deviation 1 on samples of the
SFT policy. Where groups want opposite things the worst one changes from batch to batch, and the policy settles where
all have the same; with one group this is RLOO.

Paper: Chakraborty et al. (arXiv 2402.08925), algorithm 1, with RLOO for its PPO. Defaults: those of ``rloo``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy, Samples, Scorer
from reference_methods.online.rloo import RLOO
from reference_methods.parts.online import RATIO_IS_ONE, OnlineTrainer


@runtime_checkable
class ByGroup(Protocol):
    """A reward model that has one of its own for each group of users."""

    scorers: list[Scorer]


@dataclass(frozen=True, kw_only=True)
class MaxMin(RLOO):
    """Trains the policy on groups of its own samples, scored by the reward of the group that is worst off."""

    def train(self, learning: Learning) -> Policy:
        policy, model = self.start(learning), self.scorer(learning)
        if not isinstance(model, ByGroup):
            raise UserError(
                f"max_min: the model `{self.reward_model}` has no reward for each group; name one under `models` that "
                "is a mixture_reward_model"
            )
        networks = [(policy, self.learning_rate)]
        with OnlineTrainer(self, learning, "rloo", networks, at_start=RATIO_IS_ONE) as trainer:
            for rollout in trainer.rollouts(policy, partial(self.of_the_worst, trainer, model.scorers)):
                advantages = self.advantages(rollout)
                for batch in trainer.minibatches(rollout.samples):
                    trainer.update(batch, partial(self.loss, policy, rollout, advantages))
        return policy

    def of_the_worst(self, trainer: OnlineTrainer, scorers: list[Scorer], samples: Samples) -> Tensor:
        """The rewards of the group whose mean over the batch is lowest, [B]."""
        rewards = torch.stack([trainer.compute(scorer.scores, samples) for scorer in scorers])
        means = rewards.mean(1)
        worst = int(means.argmin())
        trainer.log(worst_group=worst, **{f"reward_{z}": float(mean) for z, mean in enumerate(means)})
        return rewards[worst]
