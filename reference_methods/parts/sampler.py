"""Sampler against trainer: are they one policy, and what to do where they are not quite.

An engine that samples for the policy (vLLM, a server) computes with other kernels, often at another precision, and may
hold older weights. With d = log pi_trainer - log pi_engine of each sampled token:

    sampler_gap      mean |d|, in nats
    sampler_gap_max  the largest exp |d|
    sampler_error    mean exp |d|; beyond 1.05 something is wrong, and a warning says so
    sampler_kl       mean of exp(d) - 1 - d: the KL from the engine to the trainer, a token

The correction is truncated importance sampling: a token's loss is weighted by min(exp(d), cap). The weights have no
gradient, and a cap of 2 to 3 keeps the variance bounded at the price of a small bias.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from farm.protocols import Policy
from reference_methods.parts.optimization import Metrics

ALARM = 1.05
"""``sampler_error`` beyond which a warning is given"""


def samples_elsewhere(policy: Policy) -> bool:
    """Whether another engine than the policy's own code draws its samples."""
    engine: Any = getattr(policy, "engine", None)
    return engine is not None and not engine.own


@torch.no_grad()
def compare(trained: Tensor, sampled: Tensor, mask: Tensor) -> Metrics:
    """The four numbers, of log-probabilities [B, T] of the same tokens."""
    difference = (trained - sampled)[mask].double()
    if not len(difference):
        return {"sampler_gap": 0.0, "sampler_gap_max": 1.0, "sampler_error": 1.0, "sampler_kl": 0.0}
    error = float(difference.abs().exp().mean())
    if not error <= ALARM:
        warnings.warn(
            f"the log-probabilities of sampler and trainer differ by a factor of {error:.3f} on average "
            f"(sampler_error, alarm above {ALARM}): the sampler may hold old weights, or compute at another precision",
            stacklevel=2,
        )
    return {
        "sampler_gap": float(difference.abs().mean()),
        "sampler_gap_max": float(difference.abs().max().exp()),
        "sampler_error": error,
        "sampler_kl": float((difference.expm1() - difference).mean()),
    }


@torch.no_grad()
def correction(trained: Tensor, sampled: Tensor, mask: Tensor, cap: float | None) -> tuple[Tensor | None, float]:
    """The weights of the tokens, [B, T], and the share of them that the cap cut; None without a ``cap``."""
    if cap is None:
        return None, 0.0
    ratio = torch.where(mask, trained - sampled, 0.0).exp()
    return ratio.clamp(max=cap), float((ratio > cap)[mask].float().mean()) if bool(mask.any()) else 0.0
