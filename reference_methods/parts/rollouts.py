"""Learning from one's own samples: the settings, the rollout and the update of every online method.

A step is: sample a batch of responses, score them, turn scores and KL into advantages (what the methods differ in), and
take a few gradient steps on the batch with the clipped objective of PPO. The log-probabilities that the sampler drew
with are the denominator of the ratio, so sampling costs no second pass; before the first update the ratio must be 1 to
rounding, which is checked at the start of a run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.errors import UserError
from farm.protocols import Learning, Policy, Samples, Scorer
from reference_methods.parts import kl
from reference_methods.parts.aggregation import Totals
from reference_methods.parts.batches import in_parts, minibatches, prompt_stream, total_lengths
from reference_methods.parts.optimization import Loss, Metrics, Optimizer, Schedule, accumulate


@dataclass(frozen=True)
class Rollout:
    """B responses of the policy to be improved, as it wrote them and as others see them. No tensor has a gradient."""

    samples: Samples
    mask: Tensor
    """true at real tokens, [B, T]"""
    log_probabilities: Tensor
    """of the sampled tokens under the policy that sampled, [B, T]"""
    reference: Tensor
    """of the sampled tokens under the SFT policy, [B, T]"""
    scores: Tensor
    """of the reward model, or the fixed reward of a response that did not end, [B]"""
    started: float
    """when its sampling began, by ``time.perf_counter``"""

    def token_rewards(self, beta: float, estimator: kl.InReward) -> Tensor:
        """-beta KL_t at every token, and the score besides at the last, [B, T]."""
        rewards = -beta * kl.in_reward(estimator, self.log_probabilities, self.reference) * self.mask
        last = self.mask.sum(1).clamp(min=1) - 1
        rewards[torch.arange(len(rewards), device=rewards.device), last] += self.scores
        return rewards

    def sequence_rewards(self, beta: float, estimator: kl.InReward) -> Tensor:
        """The sum of the rewards of the tokens, [B]."""
        return self.token_rewards(beta, estimator).sum(1)

    def metrics(self, learning: Learning) -> Metrics:
        """Of the batch as it was sampled; call it after the update, so that the speed is that of the whole step."""
        real = self.mask.sum().clamp(min=1)
        difference = kl.k1(self.log_probabilities, self.reference) * self.mask
        return {
            "reward": float(self.scores.mean()),
            "kl": float(difference.sum(1).mean()),
            "entropy": float(-(self.log_probabilities * self.mask).sum() / real),
            "tokens_per_second": float(real) / (time.perf_counter() - self.started),
            **sample_metrics(self.samples, learning),
        }


@dataclass(frozen=True, kw_only=True)
class Online:
    """Settings of the methods that learn from their own samples. Methods inherit them and give their own defaults."""

    steps: int = 80
    """how often to sample a batch and learn from it"""
    rollouts: int = 512
    """responses of one batch"""
    samples_per_prompt: int = 1
    temperature: float = 1.0
    """of the samples, and of every log-probability"""
    max_new_tokens: int | None = None
    """longest response; the policy's own limit where omitted"""
    missing_eos_reward: float | None = -1.0
    """the reward of a response that did not end by itself, instead of its score; ``None`` keeps the score"""
    beta: float = 0.02
    """the coefficient of the KL to the SFT policy, in the reward"""
    kl_estimator: kl.InReward = "k1"
    clip: float = 0.2
    """how far the probability ratio counts beyond 1"""
    epochs: int = 2
    """passes over each batch"""
    minibatches: int = 2
    """optimizer steps of one pass"""
    learning_rate: float = 1e-5
    """the peak"""
    schedule: Schedule = "linear"
    warm_up: float = 0.0125
    """share of the optimizer steps over which the learning rate rises"""
    max_gradient_norm: float = 1.0
    adam_epsilon: float = 1e-5
    same: float = 1e-3
    """nats, or a share of tokens, below which sampling and training count as one policy before the first update; in
    bfloat16 they round differently and need some 1e-2. (The mean ratio would not tell: it is 1 for any policy.)"""
    micro_batch_tokens: int = 4096
    """most tokens, padding included, of one forward and backward pass; changes memory and speed, not the result"""

    def __post_init__(self) -> None:
        if self.rollouts % self.samples_per_prompt or self.rollouts % self.minibatches:
            raise ValueError(
                f"rollouts ({self.rollouts}) must be a multiple of samples_per_prompt ({self.samples_per_prompt}) "
                f"and of minibatches ({self.minibatches})"
            )
        if self.temperature <= 0:
            raise ValueError("the temperature must be positive: a method that learns from samples needs chance")

    def roll_out(self, policy: Policy, learning: Learning, purpose: str) -> Iterator[Rollout]:
        """A batch of scored samples a step, of the policy as it is then."""
        if learning.reward_model is None or not len(learning.prompts):
            raise UserError(f"{purpose}: it needs a reward model, and prompts to sample for")
        learning.steps(self.steps)
        instructions = learning.prompts["instruction"].tolist()
        each = self.rollouts // self.samples_per_prompt
        for step, prompts in enumerate(prompt_stream(instructions, each, self.steps, learning.seed, purpose)):
            started = time.perf_counter()
            samples = policy.sample(
                [prompt for prompt in prompts for _ in range(self.samples_per_prompt)],
                seed=learning.seed,
                purpose=f"{purpose}/step {step}",
                temperature=self.temperature,
                max_new_tokens=self.max_new_tokens,
            )
            reference = in_parts(
                lambda part: learning.policy.log_probabilities(part, self.temperature)[0],
                samples,
                self.micro_batch_tokens,
            )
            log_probabilities, mask = padded(samples.log_probabilities, like=reference)
            scores = self._scores(learning.reward_model, samples)
            yield Rollout(samples, mask, log_probabilities, reference, scores, started)

    def _scores(self, reward_model: Scorer, samples: Samples) -> Tensor:
        scores = in_parts(reward_model.scores, samples, self.micro_batch_tokens)
        if self.missing_eos_reward is None:
            return scores
        ended = torch.tensor([reason == "stop" for reason in samples.finish_reason], device=scores.device)
        return torch.where(ended, scores, self.missing_eos_reward)

    def optimizer(self, networks: Sequence[tuple[Iterable[torch.nn.Parameter], float]], purpose: str) -> Optimizer:
        return Optimizer(
            networks,
            steps=self.steps * self.epochs * self.minibatches,
            schedule=self.schedule,
            warm_up=self.warm_up,
            max_gradient_norm=self.max_gradient_norm,
            epsilon=self.adam_epsilon,
            purpose=purpose,
        )

    def improve(self, loss: Loss, optimizer: Optimizer, rollout: Rollout, seed: int, purpose: str) -> Metrics:
        """A few epochs of minibatch steps on one batch; the mean of each metric over the steps.

        ``loss`` must return the metrics "update_kl", the KL from the policy that sampled, and "clip_fraction".

        Raises:
            RuntimeError: at the first step of a run, the policy that trains is not the one that sampled.
        """
        lengths, tokens = total_lengths(rollout.samples), rollout.samples.lengths()
        ids = np.arange(self.rollouts, dtype=np.uint64)
        size = self.rollouts // self.minibatches
        steps = []
        for rows in minibatches(ids, lengths, size, self.epochs, seed, purpose, bucket=1):
            totals = Totals(float(len(rows)), float(tokens[rows].sum()))
            metrics = accumulate(loss, rows, totals, lengths, self.micro_batch_tokens)
            if optimizer.steps_taken == 0 and max(metrics["update_kl"], metrics["clip_fraction"]) > self.same:
                raise RuntimeError(
                    f"{purpose}: before the first update the probability ratio must be 1 and nothing clipped, but the "
                    f"policies that sampled and that trains are {metrics['update_kl']:.4f} nats apart and "
                    f"{metrics['clip_fraction']:.2%} is clipped: sampling and training give different log-probabilities"
                )
            steps.append(metrics | optimizer.step(metrics["loss"]))
        return {name: float(np.mean([metrics[name] for metrics in steps])) for name in steps[0]}


def padded(rows: Sequence[NDArray[np.float32]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as a tensor padded with zeros, [B, T] as ``like``, and the mask of what is real."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(like.shape[1])[None] < lengths[:, None]
    out = torch.zeros(mask.shape, dtype=like.dtype)
    out[mask] = torch.from_numpy(np.concatenate(rows)).to(like.dtype)
    return out.to(like.device), mask.to(like.device)


def sample_metrics(samples: Samples, learning: Learning) -> Metrics:
    """What can be said of samples alone: their length, how many were cut, and the gold utility where it is known."""
    metrics = {
        "length": float(samples.lengths().mean()),
        "truncated_share": float(np.mean([reason != "stop" for reason in samples.finish_reason])),
    }
    if learning.gold is not None:
        metrics["gold"] = float(np.mean(learning.gold(samples)))
    return metrics
