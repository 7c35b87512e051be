"""What rounding does: to weights that train, and to log-probabilities, of which two passes may differ.

A weight in bfloat16 has 8 bits: an update below 2^-9 of it is rounded away, which is most of them (see docs/training.md
for shares). So what trains is held in 32 bits or more, and 16 bits are what it is *computed* in.

A pass rounds as its batch is cut and padded, so two right computations of log pi(y|x) differ. A number x is stored with
an error of at most |x| eps / 2, eps being 2^-23 in 32 bits, 2^-10 in float16 and 2^-7 in bfloat16 (8 bits of mantissa):
evenly spread, a standard deviation of |x| eps / sqrt(12). A token's log-probability is a difference of two such numbers
(its logit and the log of the sum), with logits of up to 16:

    u = 16 eps / sqrt(6)        0.05 nats in bfloat16, which is what SmolLM2 shows; 8e-7 in 32 bits

and of the sum over the T tokens of a response, their signs being random, u sqrt(T).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from farm.base.errors import UserError

LARGEST_LOGIT = 16.0


def inner(policy: Any) -> Any:
    """The policy itself, of one with a control text before each prompt, such as Quark's."""
    return getattr(policy, "policy", policy)


def precision_of(policy: Any) -> torch.dtype:
    """The least precise type in which the policy computes. An engine is given that precision; a server has its own."""
    own = inner(policy)
    weights: torch.dtype = next(getattr(own, "model", own).parameters()).dtype  # of the base, if adapters train
    computed = getattr(own, "compute_dtype", None)
    return weights if weights.itemsize < 4 or computed is None else getattr(torch, computed)


def in_16_bits(policy: Any) -> bool:
    """Whether the policy computes in bfloat16 or float16."""
    return precision_of(policy).itemsize < 4


def check_learns(networks: Iterable[Any], purpose: str) -> None:
    """Refuse to train weights that are held in 16 bits, or with gradients in float16.

    Raises:
        UserError: says why, and what to set.
    """
    for network in networks:
        if getattr(getattr(inner(network), "body", None), "compute_dtype", None) == "float16":
            raise UserError(
                f"{purpose}: `compute_dtype: float16` has no room for small gradients, which would become 0; set the "
                "world's `compute_dtype: auto` (bfloat16 where the hardware has it) or float32"
            )
        held = {p.dtype for p in network.parameters() if p.requires_grad and p.dtype.itemsize < 4}
        if held:
            name = str(held.pop()).removeprefix("torch.")
            raise UserError(
                f"{purpose}: what trains is held in {name}, which rounds most updates away; set the world's `dtype: "
                "float32` and `compute_dtype: auto` (it then computes in 16 bits all the same), or `tune: lora`, whose "
                "adapters are float32 on any base"
            )


@dataclass(frozen=True)
class AtStart:
    """What a metric, a mean over the rows of a minibatch, must be before the first update.

    ``slope`` and ``curvature`` are the first and second derivative of a row's share with respect to the log-likelihood
    of the row, at the start; zero for a metric that is the same whatever is rounded.
    """

    value: float
    slope: float = 0.0
    curvature: float = 0.0

    def tolerance(self, policy: Any, rows: float, tokens: float) -> float:
        """What rounding may add at most (three standard deviations), of ``rows`` rows with ``tokens`` tokens in all."""
        rows = max(rows, 1.0)
        token = LARGEST_LOGIT * torch.finfo(precision_of(policy)).eps / math.sqrt(6)
        deviation = token * math.sqrt(tokens / rows)
        first, second = abs(self.slope) * deviation, 0.5 * abs(self.curvature) * deviation**2
        return 3 * first / math.sqrt(rows) + second * (1 + 3 * math.sqrt(2 / rows))
