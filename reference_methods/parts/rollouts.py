"""Learning from one's own samples: the settings and the loop of every online method.

A step is: *sample* a batch of responses, *label* them with their scores, *build* what the update aims at (in this the
methods differ), and *update*: a few gradient steps on the batch. :meth:`Online.learn` is that loop.

Where the policy samples itself, the log-probabilities it drew with are the denominator of the ratio, so sampling costs
no second pass. Where another engine samples for it (vLLM, a server), or in 16 bits, where rounding alone would clip,
the trainer computes them once more, and :mod:`reference_methods.parts.sampler` compares the two and corrects for the
difference. Before the first update of a run the ratio must be 1 to rounding, which is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.errors import UserError
from farm.policies.trees import same_prompts
from farm.protocols import Learning, Policy, Samples, Scorer
from reference_methods.parts import kl
from reference_methods.parts.aggregation import Totals
from reference_methods.parts.batches import (
    Rows,
    in_parts,
    index,
    micro_batches,
    minibatches,
    prompt_stream,
    sampled,
    total_lengths,
)
from reference_methods.parts.checkpoints import Checkpoints, Kept
from reference_methods.parts.optimization import Loss, Metrics, Optimizer, Schedule, accumulate
from reference_methods.parts.sampler import (
    SAME,
    alarm_of,
    compare,
    correction,
    in_16_bits,
    same_of,
    samples_elsewhere,
)
from reference_methods.parts.training import Training

Networks = Sequence[tuple[Policy | Scorer, float]]
"""What trains, each with its peak learning rate, the policy first."""

COMPARED = 1024
"""A policy that samples itself is compared with what it drew on so many tokens a step: a check, and almost free."""


@dataclass(frozen=True)
class Rollout:
    """B responses of the policy to be improved, as it wrote them and as others see them. No tensor has a gradient."""

    samples: Samples
    mask: Tensor
    """true at real tokens, [B, T]"""
    log_probabilities: Tensor
    """of the sampled tokens under the policy that sampled, as the trainer computes them, [B, T]"""
    reference: Tensor
    """of the sampled tokens under the SFT policy, [B, T]"""
    scores: Tensor
    """of the reward model, or the fixed reward of a response that did not end, [B]"""
    started: float
    """when its sampling began, by ``time.perf_counter``"""
    step: int = 0
    weights: Tensor | None = None
    """of the tokens, [B, T]: what corrects for a sampler that is not quite the policy; None where it is"""
    comparison: Metrics = field(default_factory=dict)
    """of the log-probabilities of sampler and trainer"""
    same: float = SAME
    """below which the two count as one policy"""
    everything: Rollout | None = None
    """all that was sampled in the step, where this is a choice from it (``refill``)"""

    def token_weights(self) -> Tensor:
        """What multiplies the loss (or the advantage) of each token, [B, T]; ones where the policy sampled itself."""
        return torch.ones_like(self.log_probabilities) if self.weights is None else self.weights

    def sequence_weights(self) -> Tensor:
        """The mean of the weights of a response's tokens, [B], for methods whose ratio is that of whole responses.
        (Their product would vanish or explode with the length; the mean of truncated weights stays near 1.)"""
        real = self.mask.to(self.log_probabilities.dtype)
        return (self.token_weights() * real).sum(1) / real.sum(1).clamp(min=1)

    def select(self, rows: Rows) -> Rollout:
        """The responses at these positions."""
        where = index(rows, self.scores)
        return replace(
            self,
            samples=self.samples.select(rows),
            mask=self.mask[where],
            log_probabilities=self.log_probabilities[where],
            reference=self.reference[where],
            scores=self.scores[where],
            weights=None if self.weights is None else self.weights[where],
        )

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
        """Of all that was sampled; call it after the update, so that the speed is that of the whole step."""
        if self.everything is not None:
            return self.everything.metrics(learning)
        real = self.mask.sum().clamp(min=1)
        difference = kl.k1(self.log_probabilities, self.reference) * self.mask
        return {
            "reward": float(self.scores.mean()),
            "kl": float(difference.sum(1).mean()),
            "entropy": float(-(self.log_probabilities * self.mask).sum() / real),
            "tokens_per_second": float(real) / (time.perf_counter() - self.started),
            **self.comparison,
            **sample_metrics(self.samples, learning),
        }


@dataclass(frozen=True, kw_only=True)
class Online(Training):
    """Settings of the methods that learn from their own samples, and their loop. Methods inherit them and give their
    own defaults."""

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
    same: float | None = None
    """nats a token, or a share of them, below which sampling and training count as one policy before the first update;
    left out, 1e-3, and 1e-2 in 16 bits, where they round differently. (The mean ratio would not tell: it is 1 for any
    policy.)"""
    micro_batch_tokens: int = 4096
    """most tokens of one forward and backward pass, besides padding; changes memory and speed, not the result"""
    importance_cap: float | None = 2.0
    """where another engine samples, or in 16 bits, each token's loss is weighted by pi_trainer / pi_sampler, at most
    this (truncated importance sampling); None for no correction"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollouts % self.samples_per_prompt or self.rollouts % self.minibatches:
            raise ValueError(
                f"rollouts ({self.rollouts}) must be a multiple of samples_per_prompt ({self.samples_per_prompt}) "
                f"and of minibatches ({self.minibatches})"
            )
        if self.temperature <= 0:
            raise ValueError("the temperature must be positive: a method that learns from samples needs chance")

    def learn(
        self,
        policy: Policy,
        networks: Networks,
        build: Callable[[Rollout], tuple[Loss, Metrics]],
        learning: Learning,
        purpose: str,
        kept: Kept | None = None,
    ) -> None:
        """Improve ``policy`` in place: sample and label, build, update, once a step.

        Args:
            networks: all that trains.
            build: what the update of a batch minimises, and what else there is to log of it. The loss must return the
                metrics "update_kl", the KL from the policy that sampled, and "clip_fraction".
            kept: what the method remembers from step to step, besides the networks.
        """
        facts = self.facts(), learning.prompts["instruction"].tolist()
        learning.steps(self.steps)
        with self.spread(network for network, _ in networks):
            optimizer = self.optimizer(networks, purpose)
            checkpoints = Checkpoints(learning, purpose, optimizer, self.checkpoint_minutes, facts, kept)
            for rollout in self._rollouts(policy, learning, purpose, checkpoints.restore()):
                loss, metrics = build(rollout)
                update = self.improve(loss, optimizer, rollout, learning.seed, f"{purpose}/step {rollout.step}")
                checkpoints.log({"step": rollout.step, **rollout.metrics(learning), **update, **metrics})
                checkpoints.after(rollout.step)

    def roll_out(self, policy: Policy, learning: Learning, purpose: str) -> Iterator[Rollout]:
        """A batch of scored samples a step, of the policy as it is then; for a loop of one's own."""
        learning.steps(self.steps)
        yield from self._rollouts(policy, learning, purpose, 0)

    def _rollouts(self, policy: Policy, learning: Learning, purpose: str, first: int) -> Iterator[Rollout]:
        if learning.reward_model is None or not len(learning.prompts):
            raise UserError(f"{purpose}: it needs a reward model, and prompts to sample for")
        instructions = learning.prompts["instruction"].tolist()
        each = self.rollouts // self.samples_per_prompt
        for step, prompts in enumerate(prompt_stream(instructions, each, self.steps, learning.seed, purpose)):
            if step >= first:
                yield self._rollout(policy, learning, purpose, step, prompts)

    def _rollout(self, policy: Policy, learning: Learning, purpose: str, step: int, prompts: list[str]) -> Rollout:
        assert learning.reward_model is not None
        started = time.perf_counter()
        asked = [prompt for prompt in prompts for _ in range(self.samples_per_prompt)]
        samples = sampled(
            policy,
            asked,
            seed=learning.seed,
            purpose=f"{purpose}/step {step}",
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
        )
        reference = self._log_probabilities(learning.policy, samples)
        drawn, mask = padded(samples.log_probabilities, like=reference)
        scores = self._scores(learning.reward_model, samples)
        same = same_of(policy) if self.same is None else self.same
        rollout = Rollout(samples, mask, drawn, reference, scores, started, step, same=same)
        return self._compared(rollout, policy, purpose)

    def _compared(self, rollout: Rollout, policy: Policy, purpose: str) -> Rollout:
        """The rollout with what the trainer makes of it: of all of it where what was drawn with is not what the
        trainer computes, else of a part."""
        drawn, mask, alarm = rollout.log_probabilities, rollout.mask, alarm_of(policy)
        if not (samples_elsewhere(policy) or in_16_bits(policy)):
            lengths = total_lengths(rollout.samples)
            some = micro_batches(np.arange(len(lengths)), lengths, min(COMPARED, self.micro_batch_tokens))[0]
            trained = self._log_probabilities(policy, rollout.samples.select(some), together=False)
            width = trained.shape[1]
            return replace(rollout, comparison=compare(trained, drawn[some, :width], mask[some, :width], alarm))
        trained = self._log_probabilities(policy, rollout.samples)
        comparison = compare(trained, drawn, mask, alarm)
        if rollout.step == 0 and not comparison["sampler_kl"] <= rollout.same:
            raise RuntimeError(
                f"{purpose}: before the first update what samples and the policy that trains are "
                f"{comparison['sampler_kl']:.4f} nats a token apart (`same` allows {rollout.same:g}): other weights, "
                "another temperature, a cut distribution (top_k, top_p) or another precision"
            )
        weights, cut = correction(trained, drawn, mask, self.importance_cap)
        return replace(
            rollout, log_probabilities=trained, weights=weights, comparison={**comparison, "importance_cut": cut}
        )

    def _log_probabilities(self, policy: Policy, samples: Samples, together: bool = True) -> Tensor:
        def compute(part: Samples) -> Tensor:
            return policy.log_probabilities(part, self.temperature)[0]

        return in_parts(compute, samples, self.micro_batch_tokens, together)

    def _scores(self, reward_model: Scorer, samples: Samples) -> Tensor:
        scores = in_parts(reward_model.scores, samples, self.micro_batch_tokens, together=True)
        if self.missing_eos_reward is None:
            return scores
        ended = torch.tensor([reason == "stop" for reason in samples.finish_reason], device=scores.device)
        return torch.where(ended, scores, self.missing_eos_reward)

    def optimizer(self, networks: Networks, purpose: str) -> Optimizer:
        return Optimizer(
            [(network.parameters(), peak) for network, peak in networks],
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
        ids = np.arange(len(rollout.samples), dtype=np.uint64)
        prompts = same_prompts(rollout.samples.prompt_tokens)
        size = -(-len(rollout.samples) // self.minibatches)
        steps = []
        for rows in minibatches(ids, lengths, size, self.epochs, seed, purpose, bucket=1):
            totals = Totals(float(len(rows)), float(tokens[rows].sum()))
            metrics = accumulate(loss, rows, totals, lengths, self.micro_batch_tokens, optimizer.in_step, prompts)
            if optimizer.steps_taken == 0 and max(metrics["update_kl"], metrics["clip_fraction"]) > rollout.same:
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
