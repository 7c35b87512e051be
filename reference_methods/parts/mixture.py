"""Users of unknown groups, each with a Bradley-Terry reward of its own: hard EM on vectors of responses.

    P(1 > 2) = sigma(w_z . x),   x = v(y_1) - v(y_2),   z = the group of the user

    E    z(u) = argmax over z of the sum over the pairs of u of log P of their labels under w_z
    M    w_z  = argmin of -log P of the pairs of the users of z, and ridge / 2 |w|^2

Of several starts, each an assignment of users by a draw, the likeliest end is taken. Groups are numbered by how many
pairs they have, the largest first. Pure functions of arrays; :class:`~reference_methods.models.mixture_reward_model`
fits reward models to the groups.

Paper: MaxMin-RLHF (Chakraborty et al., arXiv 2402.08925), algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from farm.base import rng
from farm.base.arrays import Floats, Ints

MOST_ROUNDS = 50
"""of E and M from one start; assignments of users repeat long before"""


@dataclass(frozen=True)
class Mixture:
    """Z groups of users."""

    weights: Floats
    """w, [Z, d]"""
    group: Ints
    """z of each user, [U]"""
    log_likelihood: float
    """of all labels, each under the group of its user"""


def fit(
    x: Floats, p_first: Floats, user: Ints, groups: int, *, restarts: int, seed: int, ridge: float = 1.0
) -> Mixture:
    """The likeliest mixture of the starts.

    Args:
        x: differences of the vectors of two responses, [n, d].
        p_first: how far the first is preferred, 1, 0 or in between, [n].
        user: whose label each is, from 0 to U - 1, [n].
        groups: Z.
    """
    users = int(user.max()) + 1
    found = [_from_start(x, p_first, user, groups, _start(users, groups, seed, k), ridge) for k in range(restarts)]
    best = max(found, key=lambda mixture: mixture.log_likelihood)
    order = np.argsort(-np.bincount(best.group[user], minlength=groups), kind="stable")
    return Mixture(best.weights[order], np.argsort(order)[best.group], best.log_likelihood)


def _start(users: int, groups: int, seed: int, start: int) -> Ints:
    """The users dealt to the groups in a drawn order, [U]."""
    order = rng.permutation(np.arange(users, dtype=np.uint64), seed, f"mixture: start {start}")
    return np.asarray(np.argsort(order) % groups, dtype=np.int64)


def _from_start(x: Floats, p_first: Floats, user: Ints, groups: int, group: Ints, ridge: float) -> Mixture:
    weights = np.zeros((groups, x.shape[1]))
    for _ in range(MOST_ROUNDS):
        for z in range(groups):
            rows = group[user] == z
            if rows.any():  # a group without users stays what it was
                weights[z] = logistic(x[rows], p_first[rows], ridge)
        of_user = likelihoods(x, p_first, user, weights)
        better = of_user.argmax(1).astype(np.int64)
        if (better == group).all():
            break
        group = better
    return Mixture(weights, group, float(of_user[np.arange(len(group)), group].sum()))


def likelihoods(x: Floats, p_first: Floats, user: Ints, weights: Floats) -> Floats:
    """The log-likelihood of each user's labels under each group, [U, Z]."""
    logit = x @ weights.T
    of_pair = -(p_first[:, None] * np.logaddexp(0, -logit) + (1 - p_first)[:, None] * np.logaddexp(0, logit))
    out = np.zeros((int(user.max()) + 1, len(weights)))
    np.add.at(out, user, of_pair)
    return out


def logistic(x: Floats, p_first: Floats, ridge: float, steps: int = 15) -> Floats:
    """The weights of a ridge logistic regression without a constant, by Newton's method, [d]."""
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        p = expit(x @ w)
        slope = (p - p_first) @ x + ridge * w
        curvature = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(w))
        step = np.linalg.solve(curvature, slope)
        w = w - step
        if np.abs(step).max() < 1e-8:
            break
    return w
