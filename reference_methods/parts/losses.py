"""Losses: pure functions of log-probabilities and scores, one value an element, before any averaging.

Every function returns the loss of each element (a pair, a token, a place) and leaves the averaging to
:mod:`reference_methods.parts.aggregation`, so that the normalisation of a method is said in one place.

The loss of direct preference optimisation (arXiv 2305.18290) and that of a reward model are one function, the
Bradley-Terry loss of a margin; they differ in what the margin is:

    reward model     margin = r(y1) - r(y2)
    DPO              margin = beta (h(y1) - h(y2)),   h(y) = log pi(y|x) - log pi_ref(y|x), summed over tokens
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry(
    margin: Tensor,
    p_first: Tensor,
    label_smoothing: float = 0.0,
    robust: bool = False,
    offset: float | Tensor = 0.0,
) -> Tensor:
    """-[p log sigma(m) + (1 - p) log sigma(-m)]: cross-entropy between the labels and a Bradley-Terry model.

    Args:
        margin: m, how far the model puts the first above the second, [B].
        p_first: p in [0, 1], the label; 1/2 is a tie, which counts half for both sides, [B].
        label_smoothing: e, the assumed share of flipped labels, below 1/2. With ``robust`` false the conservative
            loss (1 - e) l(m, p) + e l(m, 1 - p), whose optimum is smoothed (cDPO).
        robust: with l the loss above, ((1 - e) l(m, p) - e l(m, 1 - p)) / (1 - 2e): under a flip rate e its
            expectation is the loss of the clean labels (robust DPO, arXiv 2403.00409). It is not bounded below.
        offset: by how much a side that is preferred must lead before its loss is that of no lead, a number or [B]
            (the margin of Llama 2's reward model, SimPO's gamma).

    Returns:
        [B], with gradient through ``margin``.
    """
    e = label_smoothing
    if not 0 <= e < 0.5:
        raise ValueError(f"label_smoothing is a share below one half, not {e}")
    agree, disagree = -logsigmoid(margin - offset), -logsigmoid(-margin - offset)
    if robust:
        p = (p_first - e) / (1 - 2 * e)  # the label with the assumed flips taken out of it; may leave [0, 1]
    else:
        p = (1 - 2 * e) * p_first + e
    return p * agree + (1 - p) * disagree


def contrastive(first: Tensor, second: Tensor, p_first: Tensor, bias: float = 1.0) -> Tensor:
    """-[p log sigma(s_1 - b s_2) + (1 - p) log sigma(s_2 - b s_1)] of the scores of both sides, [B].

    At ``bias`` b = 1 it is :func:`bradley_terry` of their difference. Below 1 what is not preferred counts less, and
    the loss falls when both negative scores rise by one amount: likely segments are drawn to (CPL, arXiv 2310.13639).
    """
    return -(p_first * logsigmoid(first - bias * second) + (1 - p_first) * logsigmoid(second - bias * first))


def rao_kupper(margin: Tensor, p_first: Tensor, theta: float) -> Tensor:
    """The likelihood of a comparison in which equal responses may tie (Rao and Kupper, 1967), as a loss, [B]:

        P(first wins) = sigma(m - ln theta),   P(second wins) = sigma(-m - ln theta),
        P(tie) = (theta^2 - 1) sigma(m - ln theta) sigma(-m - ln theta)

    At m = 0 both win with 1 / (1 + theta). A label between a win and a tie is that mixture of both. ``theta`` = 1
    leaves no room for ties: a tie then counts half for both sides, and the loss is that of Bradley and Terry.

    Args:
        theta: at least 1; 5 in VideoReward (arXiv 2501.13918).
    """
    if theta < 1:
        raise ValueError(f"theta is at least 1, not {theta}: at 1 there are no ties")
    if theta == 1:
        return bradley_terry(margin, p_first)
    shift = math.log(theta)
    first, second = -logsigmoid(margin - shift), -logsigmoid(-margin - shift)
    won, lost = (2 * p_first - 1).relu(), (1 - 2 * p_first).relu()
    return won * first + lost * second + (1 - won - lost) * (first + second - math.log(theta**2 - 1))


def squared(margin: Tensor, target: Tensor) -> Tensor:
    """(m - target)^2: the margin is regressed onto what it should be (IPO, arXiv 2310.12036), [B]."""
    return (margin - target).square()


def hinge(margin: Tensor, p_first: Tensor, delta: float) -> Tensor:
    """p max(0, delta - m) + (1 - p) max(0, delta + m): nothing is asked beyond a margin of delta (SLiC), [B]."""
    return p_first * (delta - margin).relu() + (1 - p_first) * (delta + margin).relu()


def log_odds(log_probability: Tensor) -> Tensor:
    """log p / (1 - p) of log p < 0; a probability that rounds to 1 is taken as 1 - 1e-6."""
    log_probability = log_probability.clamp(max=-1e-6)
    return log_probability - torch.log(-torch.expm1(log_probability))


def unlikelihood(log_probability: Tensor) -> Tensor:
    """-log(1 - p) of log p: what is not to be said (Welleck et al., arXiv 1908.04319); a probability that rounds to 1
    is taken as 1 - 1e-6."""
    return -torch.log(-torch.expm1(log_probability.clamp(max=-1e-6)))


def prospect(
    value: Tensor, desirable: Tensor, weight_desirable: float = 1.0, weight_undesirable: float = 1.0
) -> Tensor:
    """KTO (arXiv 2402.01306): what is desirable should be above the reference point, what is not below, [B].

    Args:
        value: beta (h(y) - z0), the implicit reward above the reference point, [B].
        desirable: 1, 0, or the share of verdicts by which a response is desirable, [B].
    """
    gain = weight_desirable * (1 - torch.sigmoid(value))
    loss = weight_undesirable * (1 - torch.sigmoid(-value))
    return desirable * gain + (1 - desirable) * loss


def clipped_policy_gradient(
    log_ratio: Tensor, advantages: Tensor, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """max(-A R, -A clip(R, 1 - clip_low, 1 + clip_high)) with R = exp(log_ratio) (PPO, arXiv 1707.06347, eq. 7).

    The log ratio log pi - log pi_old may be a token's [B, T] or a whole response's [B]; the advantages have its
    shape. The gradient is zero where the ratio has left the interval on the side the advantage pushes to.
    """
    ratio = log_ratio.exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high))


def clipped_share(log_ratio: Tensor, advantages: Tensor, clip_low: float = 0.2, clip_high: float = 0.2) -> Tensor:
    """1 where the clip of :func:`clipped_policy_gradient` stops the gradient, else 0; without gradient."""
    ratio = log_ratio.detach().exp()
    stopped = ((advantages > 0) & (ratio > 1 + clip_high)) | ((advantages < 0) & (ratio < 1 - clip_low))
    return stopped.to(ratio.dtype)


def clipped_value(values: Tensor, returns: Tensor, old_values: Tensor, clip: float | None = 0.2) -> Tensor:
    """1/2 max((V - G)^2, (V_old + clip(V - V_old, -clip, clip) - G)^2), shape as given; unclipped where ``None``."""
    loss = (values - returns).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.maximum(loss, (near - returns).square())
    return 0.5 * loss
