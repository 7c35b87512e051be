"""Small Llamas that worlds train from scratch: how they start, and the loop that trains them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from farm.base import progress
from farm.hardware.models import tiny_llama

INITIAL_DEVIATION = 0.1
"""of the weights; with the usual 0.02 a model takes several times as long to find out that it must look something up"""
Rows = TypeVar("Rows")


def started(vocabulary: int, hidden: int, layers: int, heads: int, feed_forward: int, context: int, seed: int) -> Any:
    """A model with random weights of :data:`INITIAL_DEVIATION`."""
    model = tiny_llama(vocabulary, hidden, layers, heads, feed_forward, context, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(INITIAL_DEVIATION / parameter.std())
    return model


def trained(
    model: Any, batches: Iterable[Rows], steps: int, loss: Callable[[Rows], Tensor], learning_rate: float, what: str
) -> Any:
    """The model after so many steps, one a batch: AdamW, and a cosine down to a twentieth after a short warm-up.

    Args:
        loss: of a batch, a scalar.
        what: is trained, for the progress line.
    """
    optimizer = torch.optim.AdamW(
        model.train().parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    warm_up = max(1, min(30, steps // 4))

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warm_up) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    with progress.task(f"training {what}", total=steps) as work:
        for rows in batches:
            found = loss(rows)
            optimizer.zero_grad(set_to_none=True)
            found.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            work.advance(1, note=f"loss {found.item():.2f}" if work.done % 20 == 0 else "")
    return model.eval()
