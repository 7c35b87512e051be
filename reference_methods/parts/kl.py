"""Estimators of KL(pi || pi_ref) from the log-probabilities of sampled tokens; d = log pi - log pi_ref.

As a *value*, averaged over tokens sampled from pi (Schulman, "Approximating KL divergence", 2020):

    k1 = d                  unbiased, high variance, of either sign
    k2 = d^2 / 2            biased, low variance
    k3 = exp(-d) - 1 + d    unbiased, low variance, never negative
    full = sum_v pi(v) (log pi(v) - log pi_ref(v))    exact at each place, needs the whole distribution

As a *gradient* they are something else. Exactly, by enumeration of a small autoregressive policy:

    k1 in the reward (with the rewards to go)     the gradient of KL(pi || pi_ref): right
    k1 as a loss                                  zero in expectation: never do it
    k2 of the response's summed d, as a loss      the gradient of KL(pi || pi_ref): the same as k1 in the reward
    k2 or full of each token, as a loss           misses what a token does to the KL of later ones
    k3 of the response's summed d, as a loss      the gradient of KL(pi_ref || pi): the other direction
    k3 of each token, as a loss                   neither direction

so a method that means the reverse KL puts k1 in the reward, and none puts it in both places.
"""

from __future__ import annotations

from torch import Tensor


def k1(log_probabilities: Tensor, reference: Tensor) -> Tensor:
    return log_probabilities - reference


def k1_clamped(log_probabilities: Tensor, reference: Tensor) -> Tensor:
    """max(d, 0), which AlpacaFarm's code has in the reward: it credits no token that became less likely, and so moves
    the optimum (unlikely actions with low rewards die out)."""
    return k1(log_probabilities, reference).clamp(min=0)


def k2(log_probabilities: Tensor, reference: Tensor) -> Tensor:
    return 0.5 * (log_probabilities - reference).square()


def k3(log_probabilities: Tensor, reference: Tensor) -> Tensor:
    difference = log_probabilities - reference
    return (-difference).expm1() + difference


def full(distributions: Tensor, reference: Tensor) -> Tensor:
    """The KL at each place from log-probabilities of every token: [B, T, V], [B, T, V] -> [B, T]."""
    return (distributions.exp() * (distributions - reference)).sum(-1)
