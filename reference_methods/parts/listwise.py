"""Losses of a list of responses to one prompt: pure functions of scores and labels, one value a list.

    s_i    scores [B, K] with gradient, here beta (log pi - log pi_ref)(y_i)
    psi_i  labels [B, K], the higher the better

    pair_logistic   sum over psi_i > psi_j of -log sigma(s_i - s_j)                             (all pairs of DPO)
    pair_hinge      sum over psi_i > psi_j of max(0, 1 - (s_i - s_j))                           (of SLiC)
    lambda          the first with weights |2^psi_i - 2^psi_j| |1/D(t_i) - 1/D(t_j)|, t the rank by s, D(t) = ln(1 + t)
    list_mle        -sum over k < K of log softmax(s_k .. s_K)_k, the list sorted by psi        (Plackett-Luce)
    softmax         -sum of q_i log softmax(s)_i,   q = psi / sum of psi
    point_mse       sum of (s_i - psi_i)^2
    point_sigmoid   sum of -[psi_i log sigma(s_i) + (1 - psi_i) log sigma(-s_i)],   psi in [0, 1]

LiPO (Liu et al., arXiv 2402.01878) compares them. All but the two point-wise ones depend on differences of the scores
alone: their gradients sum to 0 over a list. Of two responses labelled 1 and 0, lambda is (1/ln 2 - 1/ln 3) = .532 times
the logistic loss, and list_mle and softmax are that loss itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

ListLoss = Literal["lambda", "pair_logistic", "pair_hinge", "list_mle", "softmax", "point_mse", "point_sigmoid"]


def list_loss(kind: ListLoss, scores: Tensor, labels: Tensor) -> Tensor:
    """The loss of each list, [B]."""
    return _LOSSES[kind](scores, labels)


def pair_logistic(scores: Tensor, labels: Tensor) -> Tensor:
    return (_better(labels) * -logsigmoid(_differences(scores))).sum((1, 2))


def pair_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    return (_better(labels) * (1 - _differences(scores)).relu()).sum((1, 2))


def lambda_loss(scores: Tensor, labels: Tensor) -> Tensor:
    weights = _better(labels) * lambda_weights(scores, labels)
    return (weights * -logsigmoid(_differences(scores))).sum((1, 2))


def list_mle(scores: Tensor, labels: Tensor) -> Tensor:
    ordered = scores.gather(1, labels.argsort(dim=1, descending=True, stable=True))
    rest = ordered.flip(1).logcumsumexp(1).flip(1)
    return (rest - ordered)[:, :-1].sum(1)


def softmax(scores: Tensor, labels: Tensor) -> Tensor:
    total = labels.sum(1, keepdim=True)
    target = torch.where(total > 0, labels / total.clamp(min=1e-12), 1 / labels.shape[1])
    return -(target * scores.log_softmax(1)).sum(1)


def point_mse(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores - labels).square().sum(1)


def point_sigmoid(scores: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(scores, labels, reduction="none").sum(1)


def lambda_weights(scores: Tensor, labels: Tensor) -> Tensor:
    """|2^psi_i - 2^psi_j| |1/D(t_i) - 1/D(t_j)|, [B, K, K], without gradient; of equal scores the first ranks first."""
    order = scores.detach().argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(dim=1).to(scores.dtype) + 1
    gain, discount = _differences(2**labels).abs(), _differences(1 / (1 + ranks).log()).abs()
    return gain * discount


def _differences(values: Tensor) -> Tensor:
    """v_i - v_j, [B, K, K]."""
    return values[:, :, None] - values[:, None, :]


def _better(labels: Tensor) -> Tensor:
    """1 where psi_i > psi_j, else 0, [B, K, K]."""
    return (_differences(labels) > 0).to(labels.dtype)


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "lambda": lambda_loss,
    "pair_logistic": pair_logistic,
    "pair_hinge": pair_hinge,
    "list_mle": list_mle,
    "softmax": softmax,
    "point_mse": point_mse,
    "point_sigmoid": point_sigmoid,
}
