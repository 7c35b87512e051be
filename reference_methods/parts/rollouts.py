"""A rollout: responses that a policy wrote, with their scores and what others make of them.

How it is drawn and scored, and what corrects for a sampler that is not quite the policy, is in ``online``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from farm.roles.protocols import Learning, Samples
from reference_methods.parts import kl
from reference_methods.parts.batches import Rows, index
from reference_methods.parts.optimization import Metrics


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
    weights: Tensor | None = None
    """of the tokens, [B, T]: what corrects for a sampler that is not quite the policy; None where it is"""
    comparison: Metrics = field(default_factory=dict)
    """of the log-probabilities of sampler and trainer"""

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

    def token_rewards(self, beta: float, estimator: Callable[[Tensor, Tensor], Tensor] = kl.k1) -> Tensor:
        """-beta KL_t at every token, and the score besides at the last, [B, T]."""
        rewards = -beta * estimator(self.log_probabilities, self.reference) * self.mask
        last = self.mask.sum(1).clamp(min=1) - 1
        rewards[torch.arange(len(rewards), device=rewards.device), last] += self.scores
        return rewards

    def sequence_rewards(self, beta: float) -> Tensor:
        """The sum of the rewards of the tokens, [B]."""
        return self.token_rewards(beta).sum(1)

    def metrics(self, learning: Learning) -> Metrics:
        """Call it after the update, so that the speed is that of the whole step."""
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


def joined(parts: Sequence[Rollout]) -> Rollout:
    """Rollouts one after the other, padded to the longest response; the comparison and the start are the first's."""
    first, width = parts[0], max(part.mask.shape[1] for part in parts)
    if len(parts) == 1:
        return first

    def rows(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])

    corrected = any(part.weights is not None for part in parts)
    return replace(
        first,
        samples=Samples.concatenate([part.samples for part in parts]),
        mask=rows([part.mask for part in parts]),
        log_probabilities=rows([part.log_probabilities for part in parts]),
        reference=rows([part.reference for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        weights=rows([part.token_weights() for part in parts]) if corrected else None,
    )


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
