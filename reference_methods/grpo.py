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
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from farm.protocols import Learning, Policy
from reference_methods.parts import kl
from reference_methods.parts.advantages import group_relative, same_in_group
from reference_methods.parts.aggregation import Aggregation, Totals, aggregate
from reference_methods.parts.batches import Rows, index
from reference_methods.parts.losses import clipped_policy_gradient, clipped_share
from reference_methods.parts.optimization import Loss, Metrics, Optimizer
from reference_methods.parts.refill import further_prompts, refilled
from reference_methods.parts.rollouts import Online, Rollout


@dataclass(frozen=True, kw_only=True)
class GRPO(Online):
    """Trains the policy on groups of its own samples, scored by the reward model."""

    needs: ClassVar[frozenset[str]] = frozenset({"reward_model"})

    samples_per_prompt: int = 8
    beta: float = 0.04
    """the coefficient of the KL to the SFT policy"""
    kl_place: Literal["loss", "reward"] = "loss"
    """k3 in the loss, as published, or ``kl_estimator`` in the reward"""
    clip_high: float | None = None
    """how far the ratio counts above 1; as far as below (``clip``) where omitted"""
    by_deviation: bool = True
    """whether the advantages are divided by the standard deviation of their group"""
    degrees_of_freedom: Literal[0, 1] = 1
    """1 divides the variance of n rewards by n - 1, 0 by n"""
    aggregation: Aggregation = "sequence_mean_token_mean"
    """how the losses of tokens become one number"""
    horizon: int | None = None
    """the fixed length of ``sequence_mean_token_sum_over_horizon``"""
    drop_equal_groups: bool = False
    """whether groups without a difference leave the batch, and its averages"""
    refills: int = 0
    """how often in a step, at most, further prompts are sampled in the place of groups without a difference"""
    drop_truncated: bool = False
    """whether responses that did not end by themselves leave the batch, after the advantages were computed"""
    epochs: int = 1
    minibatches: int = 1
    learning_rate: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples_per_prompt < 2:
            raise ValueError("samples_per_prompt must be at least 2: a response is compared with its group")
        if self.aggregation == "sequence_mean_token_sum_over_horizon" and not self.horizon:
            raise ValueError("the aggregation over a horizon needs `horizon`, a number of tokens")
        if self.kl_place not in ("loss", "reward"):
            raise ValueError(f"kl_place is loss or reward, not {self.kl_place!r}")
        if self.kl_place == "loss" and self.kl_estimator != "k1":
            raise ValueError("kl_estimator is for kl_place: reward; the KL in the loss is k3")
        if self.refills < 0:
            raise ValueError(f"refills cannot be {self.refills}; 0 is for none")

    def train(self, learning: Learning) -> Policy:
        policy = self.start(learning)
        self.learn(policy, [(policy, self.learning_rate)], partial(self._build, policy), learning, "grpo")
        return policy

    def _rollout(self, policy: Policy, learning: Learning, purpose: str, step: int, prompts: list[str]) -> Rollout:
        first = super()._rollout(policy, learning, purpose, step, prompts)
        if not self.refills:
            return first
        instructions = learning.prompts["instruction"].tolist()

        def sample(number: int, groups: int, asked: set[str]) -> Rollout:
            key = f"{purpose}/refill {number}"
            more = further_prompts(instructions, groups, asked, learning.seed, f"{key}/step {step}")
            return super(GRPO, self)._rollout(policy, learning, key, step, more)

        return refilled(first, self.samples_per_prompt, self.refills, lambda found: ~self._equal(found), sample)

    def _build(self, policy: Policy, rollout: Rollout) -> tuple[Loss, Metrics]:
        rewards = self._rewards(rollout)
        advantages = group_relative(rewards, self.samples_per_prompt, self.by_deviation, self.degrees_of_freedom)
        kept = self._kept(rollout)
        loss = partial(self._loss, policy, rollout.select(kept), advantages[index(kept, advantages)])
        sampled = rollout.everything or rollout
        metrics = {"equal_groups": float(self._equal(sampled).mean()), "used_share": len(kept) / len(rewards)}
        if self.refills:
            metrics["refilled"] = len(sampled.samples) / len(rewards) - 1
        return loss, metrics

    def improve(self, loss: Loss, optimizer: Optimizer, rollout: Rollout, seed: int, purpose: str) -> Metrics:
        """As :meth:`Online.improve`, on the responses that are kept; no update where none is."""
        kept = self._kept(rollout)
        return super().improve(loss, optimizer, rollout.select(kept), seed, purpose) if len(kept) else {}

    def _rewards(self, rollout: Rollout) -> Tensor:
        return rollout.sequence_rewards(self.beta if self.kl_place == "reward" else 0.0, self.kl_estimator)

    def _equal(self, rollout: Rollout) -> NDArray[np.bool_]:
        """Whether a response's group has one reward in common, [B]."""
        return np.asarray(same_in_group(self._rewards(rollout), self.samples_per_prompt).cpu().numpy())

    def _kept(self, rollout: Rollout) -> Rows:
        keep = np.ones(len(rollout.samples), dtype=bool)
        if self.drop_equal_groups:
            keep &= ~self._equal(rollout)
        if self.drop_truncated:
            keep &= np.array([reason == "stop" for reason in rollout.samples.finish_reason])
        return np.flatnonzero(keep)

    def _loss(
        self, policy: Policy, rollout: Rollout, advantages: Tensor, rows: Rows, totals: Totals
    ) -> tuple[Tensor, dict[str, Tensor]]:
        new, mask = policy.log_probabilities(rollout.samples.select(rows), self.temperature)
        where, width = index(rows, new), new.shape[1]
        old, reference = rollout.log_probabilities[where, :width], rollout.reference[where, :width]
        advantage = advantages[where][:, None].to(new).expand_as(new)
        high = self.clip if self.clip_high is None else self.clip_high
        losses = clipped_policy_gradient(new - old, advantage, self.clip, high)
        if self.kl_place == "loss" and self.beta:
            losses = losses + self.beta * kl.k3(new, reference)
        losses = losses * rollout.token_weights()[where, :width]

        def mean(values: Tensor) -> Tensor:
            return aggregate(values, mask, "token_mean", totals)

        return aggregate(losses, mask, self.aggregation, totals, horizon=self.horizon), {
            "ratio": mean((new - old).detach().exp()),
            "clip_fraction": mean(clipped_share(new - old, advantage, self.clip, high)),
            "update_kl": mean(kl.k3(old, new.detach())),
        }
