"""From the losses of tokens to one number: four averages that are four different objectives.

    token_mean                    sum of all tokens / number of tokens            every token counts the same
    sequence_mean_token_mean      mean over responses of the mean of their tokens every response counts the same
    sequence_mean_token_sum       mean over responses of the sum of their tokens  the log-likelihood of responses
    sequence_mean_token_sum_over_horizon    the last, divided by a fixed length   the same up to a constant

The counts are those of the *whole* minibatch: a minibatch may be cut into micro-batches, whose losses (and gradients)
then simply add up to what one pass would have given, for any cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal[
    "token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum", "sequence_mean_token_sum_over_horizon"
]


@dataclass(frozen=True)
class Totals:
    """What a whole minibatch contains: the denominators for each of its micro-batches."""

    sequences: float
    """responses (or pairs), each with its weight"""
    tokens: float
    """response tokens, each with the weight of its response"""


def aggregate(
    values: Tensor,
    mask: Tensor,
    how: Aggregation,
    totals: Totals | None = None,
    weights: Tensor | None = None,
    horizon: int | None = None,
) -> Tensor:
    """The contribution of these responses to the average over their minibatch, a scalar.

    Args:
        values: one value a token, [B, T].
        mask: true at real tokens, [B, T]. An empty response contributes 0 (its count is taken as 1).
        totals: the counts of the whole minibatch; those of ``values`` where none are given.
        weights: of each response, [B].
        horizon: the fixed length of "sequence_mean_token_sum_over_horizon".
    """
    values = torch.where(mask, values, values.new_zeros(()))  # a padded place may hold anything, NaN included
    lengths = mask.sum(1)
    weight = values.new_ones(len(values)) if weights is None else weights
    if totals is None:
        totals = Totals(float(weight.sum()), float((weight * lengths).sum()))
    if how == "token_mean":
        return (weight * values.sum(1)).sum() / max(totals.tokens, 1e-9)
    if how == "sequence_mean_token_mean":
        each = values.sum(1) / lengths.clamp(min=1)
    elif how == "sequence_mean_token_sum":
        each = values.sum(1)
    elif how == "sequence_mean_token_sum_over_horizon":
        if not horizon or horizon < 1:
            raise ValueError(f"{how} needs the horizon, a number of tokens")
        each = values.sum(1) / horizon
    else:
        raise ValueError(f"unknown aggregation {how!r}")
    return (weight * each).sum() / max(totals.sequences, 1e-9)
