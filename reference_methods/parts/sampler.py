"""Sampler against trainer: are they one policy, and what to do where they are not quite.

An engine that samples for the policy (vLLM, a server) computes with other kernels, often at another precision, and may
hold older weights. With d = log pi_trainer - log pi_engine of each sampled token:

    sampler_gap      mean |d|, in nats
    sampler_gap_max  the largest exp |d|
    sampler_error    mean exp |d|; beyond 1.05, or 1.2 in 16 bits, something is wrong, and a warning says so
    sampler_kl       mean of exp(d) - 1 - d: the KL from the engine to the trainer, a token

In float32 two right computations differ by some 1e-5 nats a token. In bfloat16 each rounds to three digits in its own
way: SmolLM2-135M has a mean exp |d| of 1.05 to 1.06 from that alone, so there the alarm begins later.

The correction is truncated importance sampling: a token's loss is weighted by min(exp(d), cap). The weights have no
gradient, and a cap of 2 to 3 keeps the variance bounded at the price of a small bias.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from farm.base.errors import Alarm
from farm.roles.protocols import Policy
from reference_methods.parts.optimization import Metrics
from reference_methods.parts.precision import in_16_bits, inner

ALARM, ALARM_IN_16_BITS = 1.05, 1.2
"""``sampler_error`` beyond which a warning is given"""

SAME, SAME_IN_16_BITS = 1e-3, 1e-2
"""nats a token below which a sampler and a trainer count as one policy"""


def samples_elsewhere(policy: Policy) -> bool:
    """Whether another engine than the policy's own code draws its samples."""
    engine: Any = getattr(inner(policy), "engine", None)
    return engine is not None and not engine.own


def keeps_likelihoods(policy: Policy) -> bool:
    """Whether the log-probabilities that come with the policy's samples are the policy's own: drawn by its own code,
    from the whole distribution (no ``top_k``, no ``top_p``), and in 32 bits: in 16 the rounding of each token adds up
    to tenths of a nat over a response."""
    settings: dict[str, Any] = getattr(inner(policy), "settings", {})
    whole = settings.get("top_k") is None and settings.get("top_p", 1.0) >= 1
    return whole and not samples_elsewhere(policy) and not in_16_bits(policy)


def alarm_of(policy: Policy) -> float:
    """The ``sampler_error`` that rounding alone does not reach at the precision in which the policy computes."""
    return ALARM_IN_16_BITS if in_16_bits(policy) else ALARM


def same_of(policy: Policy) -> float:
    """The ``sampler_kl`` below which sampler and trainer are one policy, at the precision in which it computes."""
    return SAME_IN_16_BITS if in_16_bits(policy) else SAME


@torch.no_grad()
def compare(trained: Tensor, sampled: Tensor, mask: Tensor, alarm: float = ALARM) -> Metrics:
    """The four numbers, of log-probabilities [B, T] of the same tokens; an error above ``alarm`` warns."""
    difference = (trained - sampled)[mask].double()
    if not len(difference):
        return {"sampler_gap": 0.0, "sampler_gap_max": 1.0, "sampler_error": 1.0, "sampler_kl": 0.0}
    error = float(difference.abs().exp().mean())
    if not error <= alarm:
        warnings.warn(
            f"the log-probabilities of sampler and trainer differ by a factor of {error:.3f} on average "
            f"(sampler_error, alarm above {alarm}): the sampler may hold old weights, or compute at another precision",
            Alarm,
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
