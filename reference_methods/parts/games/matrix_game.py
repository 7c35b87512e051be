"""The preference game: two players each choose a policy, and who is preferred wins. Exact, for K responses.

    J(p, q) = p'Pq - beta KL(p || ref) + beta KL(q || ref),      P[i, j] = P(y_i > y_j),  P + P' = 1

The game is symmetric, so at its equilibrium (Nash) both play the same policy and neither gains by another. With
beta > 0 the equilibrium is the only fixed point of the best response, log pi = log ref + P pi / beta + c; with beta = 0
it is the von Neumann winner, a linear programme. How far a policy is from it is measured by its duality gap

    gap(p) = 2 (max_q J(q, p) - 1/2) >= 0,      the maximum being at the best response q ~ ref exp(P p / beta).

Formulas: Munos et al. (arXiv 2312.00886), Swamy et al. (arXiv 2401.04056). All functions take any number of games at
once: preferences [..., K, K], policies and reference [..., K], float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from farm.base.arrays import Floats


def softmax(logits: Floats) -> Floats:
    """exp(logits) / sum, over the last axis."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def win_rates(preferences: Floats, opponent: Floats) -> Floats:
    """P(y_i > opponent) of every response, [..., K]."""
    return np.asarray(np.einsum("...ij,...j->...i", preferences, opponent))


def kl(first: Floats, second: Floats) -> Any:
    """KL(first || second), [...]; infinite where ``second`` lacks a response that ``first`` gives."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(first > 0, first * (np.log(first) - np.log(second)), 0.0)
    return np.maximum(terms.sum(-1), 0.0)  # rounding


def payoff(preferences: Floats, reference: Floats, beta: float, first: Floats, second: Floats) -> Any:
    """J(first, second): the regularised preference for the first player, [...]."""
    plain = (first * win_rates(preferences, second)).sum(-1)
    return plain - beta * kl(first, reference) + beta * kl(second, reference) if beta else plain


def best_response(preferences: Floats, reference: Floats, beta: float, policy: Floats) -> Floats:
    """The policy that does best against ``policy``: softmax(log ref + P policy / beta), or a pure one for beta = 0."""
    wins = win_rates(preferences, policy)
    if beta == 0:
        return np.asarray(np.eye(wins.shape[-1])[wins.argmax(-1)])
    return softmax(np.log(reference) + wins / beta)


def duality_gap(preferences: Floats, reference: Floats, beta: float, policy: Floats) -> Any:
    """2 (J(best response, policy) - 1/2), [...]: what each of the two players could gain, added up; 0 at equilibrium.

    Computed as 2 beta KL(policy || best response), which is the same number without cancellation.
    """
    if beta == 0:
        wins = win_rates(preferences, policy)
        return 2 * (wins.max(-1) - 0.5)
    logits = np.log(reference) + win_rates(preferences, policy) / beta
    top = logits.max(-1, keepdims=True)
    log_answer = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(policy > 0, policy * (np.log(policy) - log_answer), 0.0)
    return 2 * beta * np.maximum(terms.sum(-1), 0.0)


def equilibrium(preferences: Floats, reference: Floats, beta: float) -> Floats:
    """The policy that no other is preferred to, [..., K]: the regularised Nash equilibrium, for beta = 0 the winner.

    With beta > 0 by proximal steps that converge for every beta, finished by Newton steps on the fixed point to
    rounding; unique. With beta = 0 a linear programme; where several policies win, one of them.
    """
    if beta == 0:
        games = preferences.reshape(-1, *preferences.shape[-2:])
        return np.stack([_winner(game) for game in games]).reshape(preferences.shape[:-1])
    log_reference = np.log(np.broadcast_to(reference, preferences.shape[:-1]))
    logits = log_reference.copy()
    shrink = 1 + 2 * beta  # Nash-MP (arXiv 2505.19731): the distance falls by this factor a step, whatever the game
    for _ in range(20 + int(30 / np.log(shrink))):
        half = (2 * beta * log_reference + 2 * win_rates(preferences, softmax(logits)) + logits) / shrink
        new = (2 * beta * log_reference + 2 * win_rates(preferences, softmax(half)) + logits) / shrink
        moved = np.abs(new - logits).max()
        logits = new
        if moved < 1e-7:
            break
    for _ in range(3):
        logits = _newton(preferences, log_reference, beta, logits)
    return softmax(logits)


def _newton(preferences: Floats, log_reference: Floats, beta: float, logits: Floats) -> Floats:
    """A Newton step for log pi - log ref - P pi / beta = constant."""
    policy = softmax(logits)
    size = policy.shape[-1]
    residual = logits - log_reference - win_rates(preferences, policy) / beta
    residual = residual - residual.mean(-1, keepdims=True)
    slope = policy[..., :, None] * np.eye(size) - policy[..., :, None] * policy[..., None, :]
    jacobian = np.eye(size) - preferences @ slope / beta
    jacobian = jacobian - jacobian.mean(-2, keepdims=True) + 1.0 / size  # the constant is free: keep its direction
    return np.asarray(logits - np.linalg.solve(jacobian, residual[..., None])[..., 0])


def _winner(preferences: Floats) -> Floats:
    """max v such that p'P >= v in every column, p a distribution."""
    from scipy.optimize import linprog

    size = len(preferences)
    found = linprog(
        np.r_[np.zeros(size), -1.0],
        A_ub=np.c_[-preferences.T, np.ones(size)],
        b_ub=np.zeros(size),
        A_eq=np.r_[np.ones(size), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, 1)] * size + [(None, None)],
        method="highs",
    )
    policy = np.maximum(found.x[:size], 0.0)
    return np.asarray(policy / policy.sum())


def bradley_terry_scores(preferences: Floats, iterations: int = 200) -> Floats:
    """Scores u with mean 0 that fit sigma(u_i - u_j) to P best (maximum likelihood on all pairs alike), [K]."""
    size = len(preferences)
    scores = np.zeros(size)
    off = ~np.eye(size, dtype=bool)
    for _ in range(iterations):
        model = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
        gradient = ((preferences - model) * off).sum(1)
        weight = model * (1 - model) * off
        curvature = np.diag(weight.sum(1)) - weight + 1.0 / size
        step = np.linalg.solve(curvature, gradient)
        scores = scores + step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-13:
            break
    return np.asarray(scores - scores.mean())
