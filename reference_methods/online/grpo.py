"""Group relative policy optimisation: the other samples of a prompt say what was to be expected, and its spread.

    A_i = (r_i - mean of the group) / standard deviation of the group,   the same for every token of response i
    L   = mean over responses of mean over tokens of [max(-A R, -A clip(R, 1 - clip, 1 + clip_high)) + beta KL_t]

with R = pi / pi_old of the token and KL_t = k3 = exp(-d) - 1 + d, d = log pi - log pi_ref of the token.

Paper: DeepSeekMath (arXiv 2402.03300), eqs. 3 and 4: 64 samples a prompt, one update a batch, beta 0.04, learning rate
1e-6; the deviation is the sample's (n - 1), with 1e-4 added, as in TRL. Eight samples are the default here.
What it optimises: k3 as a loss has the expected gradient of KL(pi_ref || pi) where responses are one token, and of
neither direction per token otherwise. ``kl_place: reward`` puts k1 in the reward before the group is compared, which
is the gradient of KL(pi || pi_ref). The mean of a group has the response itself in it: the reward counts (n - 1) / n
against a KL in the loss. Dividing by the deviation weighs prompts by how certain they are, and the mean over the tokens
of each response makes long bad responses cheap.
Variants, each a setting and a named configuration:
  dr_grpo  (arXiv 2503.20783)  no deviation, tokens summed and divided by a fixed horizon, beta 0
  dapo     (arXiv 2503.14476)  mean over all tokens of the batch, clip_high 0.28, no KL; groups whose rewards are all
           equal are dropped (``drop_equal_groups``), and cut responses too (``drop_truncated``); in their place further
           prompts are sampled (``refills``; the paper goes on until the batch is full, its code up to 10 batches, here
           a round asks for the missing groups alone). A batch without any left makes no update.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from farm.base.bounds import Count, Natural, NotNegative, Several
from farm.roles.protocols import Learning, Policy
from farm.tables.turns import prompts_of
from reference_methods.parts import kl
from reference_methods.parts.advantages import group_relative, same_in_group
from reference_methods.parts.aggregation import Aggregation
from reference_methods.parts.batches import Batch, Rows, further_prompts, index
from reference_methods.parts.losses import clipped_policy_gradient
from reference_methods.parts.online import RATIO_IS_ONE, Online, OnlineTrainer, ratio_metrics
from reference_methods.parts.rollouts import Rollout, joined


@dataclass(frozen=True, kw_only=True)
class GRPO(Online):
    """Trains the policy on groups of its own samples, scored by the reward model."""

    samples_per_prompt: Several = 8
    beta: NotNegative = 0.04
    """the coefficient of the KL to the SFT policy"""
    kl_place: Literal["loss", "reward"] = "loss"
    """k3 in the loss, as published, or k1 in the reward"""
    clip_high: NotNegative | None = None
    """how far the ratio counts above 1; as far as below (``clip``) where omitted"""
    by_deviation: bool = True
    """whether the advantages are divided by the standard deviation of their group"""
    degrees_of_freedom: Literal[0, 1] = 1
    """1 divides the variance of n rewards by n - 1, 0 by n"""
    aggregation: Aggregation = "sequence_mean_token_mean"
    """how the losses of tokens become one number"""
    horizon: Count | None = None
    """the fixed length of ``sequence_mean_token_sum_over_horizon``"""
    drop_equal_groups: bool = False
    """whether groups without a difference leave the batch, and its averages"""
    refills: Natural = 0
    """how often in a step, at most, further prompts are sampled in the place of groups without a difference"""
    drop_truncated: bool = False
    """whether responses that did not end by themselves leave the batch, after the advantages were computed"""
    epochs: Count = 1
    minibatches: Count = 1
    learning_rate: NotNegative = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aggregation == "sequence_mean_token_sum_over_horizon" and not self.horizon:
            raise ValueError("the aggregation over a horizon needs `horizon`, a number of tokens")
        if self.kl_place not in ("loss", "reward"):
            raise ValueError(f"kl_place is loss or reward, not {self.kl_place!r}")

    def train(self, learning: Learning) -> Policy:
        policy, instructions = self.start(learning), prompts_of(learning.prompts)
        networks = [(policy, self.learning_rate)]
        with OnlineTrainer(self, learning, "grpo", networks, at_start=RATIO_IS_ONE) as trainer:
            for rollout in trainer.rollouts(policy):
                sampled, size = rollout, len(rollout.samples)
                for refill in range(1, self.refills + 1):  # in the place of groups without a difference
                    missing = (size - int((~self.equal(sampled)).sum())) // self.samples_per_prompt
                    if missing <= 0:
                        break
                    key = trainer.key(f"refill {refill}")
                    more = further_prompts(instructions, missing, sampled.samples.prompts, learning.seed, key)
                    sampled = joined([sampled, trainer.rollout(policy, more, f"refill {refill}")])
                if self.refills:
                    rollout = sampled.select(np.argsort(self.equal(sampled), kind="stable")[:size])
                    trainer.log(refilled=len(sampled.samples) / size - 1)
                advantages, kept = self.advantages(rollout), self.kept(rollout)
                trainer.log(equal_groups=float(self.equal(sampled).mean()), used_share=len(kept) / size)
                used, advantages = rollout.select(kept), advantages[index(kept, advantages)]
                for batch in trainer.minibatches(used.samples):
                    trainer.update(batch, partial(self.loss, policy, used, advantages))
        return policy

    def rewards(self, rollout: Rollout) -> Tensor:
        return rollout.sequence_rewards(self.beta if self.kl_place == "reward" else 0.0)

    def advantages(self, rollout: Rollout) -> Tensor:
        rewards = self.rewards(rollout)
        return group_relative(rewards, self.samples_per_prompt, self.by_deviation, self.degrees_of_freedom)

    def equal(self, rollout: Rollout) -> NDArray[np.bool_]:
        """Whether a response's group has one reward in common, [B]."""
        return np.asarray(same_in_group(self.rewards(rollout), self.samples_per_prompt).cpu().numpy())

    def kept(self, rollout: Rollout) -> Rows:
        keep = np.ones(len(rollout.samples), dtype=bool)
        if self.drop_equal_groups:
            keep &= ~self.equal(rollout)
        if self.drop_truncated:
            keep &= np.array([reason == "stop" for reason in rollout.samples.finish_reason])
        return np.flatnonzero(keep)

    def loss(
        self, policy: Policy, rollout: Rollout, advantages: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        new, mask = policy.log_probabilities(rollout.samples.select(batch.rows), self.temperature)
        where, width = index(batch.rows, new), new.shape[1]
        old, reference = batch.old(new, rollout.log_probabilities), rollout.reference[where, :width]
        advantage = advantages[where][:, None].to(new).expand_as(new)
        high = self.clip if self.clip_high is None else self.clip_high
        losses = clipped_policy_gradient(new - old, advantage, self.clip, high)
        if self.kl_place == "loss" and self.beta:
            losses = losses + self.beta * kl.k3(new, reference)
        losses = losses * rollout.token_weights()[where, :width]
        mean = partial(batch.mean, mask=mask)
        loss = mean(losses, how=self.aggregation, horizon=self.horizon)
        return loss, ratio_metrics(new - old, advantage, mean, self.clip, high)
