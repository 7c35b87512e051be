"""Strengths from a win matrix by Newton: ties as half a win, or as Davidson's third outcome (1970).

    logit P(i beats j) = theta_i - theta_j
    P(i wins) : P(j wins) : P(tie) = e^{d/2} : e^{-d/2} : nu,     d = theta_i - theta_j

``prior`` is a number of virtual games of each model, half won, against an opponent of strength 0.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from farm.base.arrays import Floats


def half_derivatives(theta: Floats, wins: Floats, games: Floats, prior: float) -> tuple[Floats, Floats, Floats]:
    """Gradient [M], negative Hessian [M, M] and P(row beats column) [M, M] at theta, ties being half a win."""
    p = expit(theta[:, None] - theta[None, :])
    gradient = (wins - games * p).sum(axis=1) + prior * (0.5 - expit(theta))
    v = games * p * (1 - p)
    hessian = -v
    q = expit(theta)
    hessian[np.diag_indices_from(hessian)] = v.sum(axis=1) - np.diag(v) + prior * q * (1 - q)
    return gradient, hessian, p


def fit_half(wins: Floats, *, prior: float = 0.0, start: Floats | None = None, tolerance: float = 1e-10) -> Floats:
    """theta [M] with mean zero from a win matrix [M, M] (fractions allowed), by Newton; 5 to 8 iterations.

    ``tolerance`` bounds the largest step; ``prior`` is the number of virtual games (half won) against strength 0.
    """
    m = len(wins)
    games = wins + wins.T
    theta = np.zeros(m) if start is None else start.copy()
    gauge = 0.0 if prior else 1.0 / m
    for _ in range(200):
        gradient, hessian, _ = half_derivatives(theta, wins, games, prior)
        step = np.linalg.solve(hessian + gauge, gradient)
        largest = np.abs(step).max()
        # A logistic likelihood descends surely while no logit moves by more than about one.
        theta = theta + step * min(1.0, 1.5 / largest) if largest > 0 else theta
        if not np.isfinite(theta).all() or np.abs(theta).max() > 50:
            raise FloatingPointError("the ratings diverge")
        if largest < tolerance:
            break
    else:
        raise FloatingPointError("Newton did not converge")
    return np.asarray(theta - theta.mean())


def fit_davidson(
    decided: Floats, ties: Floats, *, prior: float = 0.0, tolerance: float = 1e-10
) -> tuple[Floats, float]:
    """theta [M] and nu from decided wins [M, M] and ties (symmetric, both orders summed) [M, M]."""
    m = len(decided)
    theta, eta = np.zeros(m), float(np.log(max(ties.sum(), 1.0) / max(decided.sum(), 1.0)))
    for _ in range(200):
        gradient, hessian, _ = davidson_derivatives(theta, eta, decided, ties, prior)
        hessian[:m, :m] += 0.0 if prior else 1.0 / m
        step = np.linalg.solve(hessian, gradient)
        largest = np.abs(step).max()
        step = step * min(1.0, 1.0 / largest) if largest > 0 else step
        theta, eta = theta + step[:m], eta + float(step[m])
        if not np.isfinite(theta).all() or np.abs(theta).max() > 50:
            raise FloatingPointError("the ratings diverge")
        if largest < tolerance:
            break
    else:
        raise FloatingPointError("Newton did not converge")
    return np.asarray(theta - theta.mean()), float(np.exp(eta))


def davidson_derivatives(
    theta: Floats, eta: float, decided: Floats, ties: Floats, prior: float
) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
    """Gradient [M + 1], negative Hessian [M + 1, M + 1] and (P(win), P(tie)) [M, M] at (theta, log nu)."""
    d = theta[:, None] - theta[None, :]
    up, nu = np.exp(d / 2), np.exp(eta)
    total = up + 1 / up + nu
    win, tie = up / total, nu / total
    lose = win.T
    games = decided + decided.T + ties
    np.fill_diagonal(games, 0)
    m = len(theta)
    q = expit(theta)
    gradient = np.empty(m + 1)
    gradient[:m] = ((decided - decided.T) / 2 - games * (win - lose) / 2).sum(axis=1) + prior * (0.5 - q)
    gradient[m] = (ties.sum() - (games * tie).sum()) / 2
    curvature = games * ((win + lose) - (win - lose) ** 2) / 4
    cross = games * tie * (win - lose) / 2
    hessian = np.zeros((m + 1, m + 1))
    hessian[:m, :m] = -curvature
    hessian[np.arange(m), np.arange(m)] = curvature.sum(axis=1) - np.diag(curvature) + prior * q * (1 - q)
    hessian[:m, m] = hessian[m, :m] = -cross.sum(axis=1)
    hessian[m, m] = (games * tie * (1 - tie)).sum() / 2
    return gradient, hessian, (win, tie)
