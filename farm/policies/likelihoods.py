"""Log-probabilities of chosen tokens, with as few copies of the logits as can be.

With a vocabulary of 50,000 the logits of a thousand tokens are 0.2 GB, and a log-softmax with its gradient holds three
of such tables just when the activations of the whole model are there too. Here there is one: the forward pass keeps the
logits and the log of each row's normaliser, and the backward pass turns the logits into their own gradient,

    d log p(t) / d logits = 1[t] - softmax(logits),    times the gradient of log p(t),

a few rows at a time, which also stay in a processor's cache. More tokens than ``LOGITS_AT_ONCE`` allows are cut into
parts whose logits are not kept at all but computed a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**26
"""Logits beyond this number are not kept for the backward pass but computed a second time."""

BLOCK = 2**20
"""Logits that are worked on together."""


def chosen(logits_of: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor, vocabulary: int) -> Tensor:
    """log p(target) of each state, float32 [N].

    Args:
        logits_of: states [n, h] to logits [n, V], float32, a tensor of their own that no other code reads.
        states: [N, h].
        targets: int64 [N].
    """

    def part(states: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = _Chosen.apply(logits_of(states), targets)  # type: ignore[no-untyped-call]
        return found

    rows = max(1, LOGITS_AT_ONCE // vocabulary)
    if len(targets) <= rows:
        return part(states, targets)
    cuts = range(0, len(targets), rows)
    parts = [checkpoint(part, states[i : i + rows], targets[i : i + rows], use_reentrant=False) for i in cuts]
    return torch.cat(parts)


class _Chosen(torch.autograd.Function):
    """Logits [N, V] and targets [N] to log-probabilities [N]. The backward pass overwrites the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        normaliser = torch.cat([part.logsumexp(-1) for part in torch.split(logits, _rows(logits))])
        ctx.save_for_backward(logits, normaliser, targets)
        ctx.spent = False
        return logits.gather(1, targets[:, None])[:, 0] - normaliser

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if ctx.spent:
            raise RuntimeError("log-probabilities take one backward pass: it turns their logits into the gradient")
        ctx.spent = True
        logits, normaliser, targets = ctx.saved_tensors
        rows = _rows(logits)
        columns = (torch.split(tensor, rows) for tensor in (logits, normaliser, gradient))
        for part, norm, upstream in zip(*columns, strict=True):
            part.sub_(norm[:, None]).exp_().mul_(-upstream[:, None])
        logits.scatter_add_(1, targets[:, None], gradient[:, None].contiguous())
        return logits, None


def _rows(logits: Tensor) -> int:
    return max(1, BLOCK // logits.shape[1]) if logits.device.type == "cpu" else max(1, 32 * BLOCK // logits.shape[1])
