"""AlpacaFarm's PPO, quirks and all: what its code does where :mod:`reference_methods.online.ppo` does better.

    rewards      r_t = -beta max(log pi_old - log pi_ref, 0)(y_t), whitened with their mean put back
    pads         every response is as long as ``max_new_tokens`` (where that is omitted, as the longest of the batch);
                 the places behind its end count in every mean and whitening, in the returns and in the value loss.
                 There the policy's log-probability is 0, and the value network sees the padding token

The rest is as in ``ppo``. The clamped KL credits no token that became less likely, and so has another optimum.

Paper: AlpacaFarm (arXiv 2305.14387) and its code; the preset ``alpaca_farm`` and the variant ``alpaca_farm_ppo_human``
have its numbers. The defaults are those of ``ppo``.
Deviations: the pads are seen by later pads, and each network's gradient is clipped by itself; no importance weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from farm.base.errors import UserError
from farm.policies.batches import prompt_lengths
from farm.roles.protocols import Learning, Policy, Samples, Scorer
from reference_methods.online.ppo import PPO, Targets
from reference_methods.parts import kl
from reference_methods.parts.advantages import explained_variance, generalised_advantage, whiten
from reference_methods.parts.batches import Batch, TrainingRows, index
from reference_methods.parts.losses import clipped_policy_gradient, clipped_share, clipped_value
from reference_methods.parts.online import RATIO_IS_ONE, OnlineTrainer
from reference_methods.parts.rollouts import Rollout


@dataclass(frozen=True, kw_only=True)
class AlpacaFarmPPO(PPO):
    """Has the settings of PPO but ``importance_cap``."""

    unused_settings: ClassVar[dict[str, str]] = {"importance_cap": "its losses have no importance weights"}

    def train(self, learning: Learning) -> Policy:
        policy, critic = self.start(learning), self.start_critic(learning)
        networks = [(policy, self.learning_rate), (critic, self.value_learning_rate)]
        with OnlineTrainer(self, learning, "ppo", networks, at_start=RATIO_IS_ONE) as trainer:
            for rollout in trainer.rollouts(policy):
                width = self.max_new_tokens or rollout.mask.shape[1]
                padded = with_pads(rollout.samples, width, critic)
                targets = self.targets(rollout, trainer.compute(critic.values, padded))
                everything = torch.ones_like(targets.returns, dtype=torch.bool)
                trainer.log(explained_variance=explained_variance(targets.old_values, targets.returns, everything))
                rows = replace(TrainingRows.of(rollout.samples, by_prompt=True), tokens=np.full(len(padded), width))
                for batch in trainer.minibatches(rows, rollout.samples):
                    trainer.update(batch, partial(self.padded_loss, policy, critic, rollout, padded, targets))
        return policy

    def targets(self, rollout: Rollout, old_values: Tensor) -> Targets:
        rewards = widened(rollout.token_rewards(self.beta, kl.k1_clamped), old_values.shape[1])
        everything = torch.ones_like(rewards, dtype=torch.bool)
        rewards = whiten(rewards, everything) + rewards.mean()
        advantages, returns = generalised_advantage(rewards, old_values, everything, self.gamma, self.lam)
        return Targets(whiten(advantages, everything), returns, old_values)

    def padded_loss(
        self, policy: Policy, critic: Scorer, rollout: Rollout, padded: Samples, targets: Targets, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        new = policy.log_probabilities(rollout.samples.select(batch.rows), self.temperature)[0]
        where, width = index(batch.rows, new), targets.returns.shape[1]
        new, old = widened(new, width), widened(batch.old(new, rollout.log_probabilities), width)
        advantages, values = targets.advantages[where], critic.values(padded.select(batch.rows))
        mean = partial(batch.mean, mask=torch.ones_like(new, dtype=torch.bool))
        policy_loss = mean(clipped_policy_gradient(new - old, advantages, self.clip, self.clip))
        value_loss = mean(clipped_value(values, targets.returns[where], targets.old_values[where], self.value_clip))
        return policy_loss + self.value_coefficient * value_loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "ratio": mean((new - old).detach().exp()),
            "clip_fraction": mean(clipped_share(new - old, advantages, self.clip, self.clip)),
            "update_kl": mean(kl.k3(old, new.detach())),
        }


def pad_token(model: Scorer) -> int:
    """The padding token of a model's tokenizer, its end of sequence where it has none; 0 for a table."""
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return 0
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def with_pads(samples: Samples, width: int, model: Scorer) -> Samples:
    """The same responses, each filled up to ``width`` tokens with the model's padding token.

    Raises:
        UserError: that is more than fits the model's context.
    """
    token, context = pad_token(model), getattr(getattr(model, "body", None), "context", None)
    longest = int(prompt_lengths(samples).max())
    if context is not None and longest + width > context:
        raise UserError(
            f"AlpacaFarm's PPO pads every response to max_new_tokens ({width}), which with a prompt of {longest} "
            f"tokens does not fit the model's context of {context}; set max_new_tokens to at most {context - longest}"
        )
    tokens = [
        np.pad(response, (0, max(0, width - len(response))), constant_values=token)
        for response in samples.response_tokens
    ]
    return replace(samples, response_tokens=tokens)


def widened(values: Tensor, width: int) -> Tensor:
    """[B, T] with columns of zeros up to ``width``."""
    return pad(values, (0, max(0, width - values.shape[1])))
