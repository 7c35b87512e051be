"""What being shown first is worth, in log-odds, next to the strengths of the models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from eval.ratings.battles import Battles
from eval.ratings.strengths import fit_half
from eval.ratings.win_matrix import count, refuse_unconnected
from farm.statistics.result import Result
from farm.statistics.uncertainty import critical


@dataclass(frozen=True)
class FirstAdvantage(Result):
    """What being shown first is worth, in log-odds, next to the ratings."""

    log_odds: float
    standard_error: float
    low: float
    high: float
    share: float
    """the win rate of the first between equals: sigmoid(log_odds)"""
    raw_share: float
    """the plain win rate of the first"""
    n: int
    confidence: float = 0.95


def first_advantage(battles: Battles, *, prior: float = 0.0, confidence: float = 0.95) -> FirstAdvantage:
    """The position intercept of logit P(first wins) = beta + theta_first - theta_second, with a row sandwich."""
    m = len(battles.models)
    counts = count(battles.first, battles.second, battles.score, m)
    if not prior:
        refuse_unconnected(counts.win_matrix(), battles.models)
    theta, beta = fit_half(counts.win_matrix(), prior=prior), 0.0
    games, wins = counts.games, counts.wins
    hessian = np.eye(m + 1)
    p = np.full((m, m), 0.5)
    for _ in range(100):
        p = expit(beta + theta[:, None] - theta[None, :])
        residual = wins - games * p
        gradient = np.r_[residual.sum(1) - residual.sum(0) + prior * (0.5 - expit(theta)), residual.sum()]
        v = games * p * (1 - p)
        both = v + v.T
        hessian = np.zeros((m + 1, m + 1))
        hessian[:m, :m] = np.diag(both.sum(1)) - both + 1.0 / m
        hessian[:m, :m] += np.diag(prior * expit(theta) * (1 - expit(theta)))
        hessian[:m, m] = hessian[m, :m] = v.sum(1) - v.sum(0)
        hessian[m, m] = v.sum()
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 1.5 / max(float(np.abs(step).max()), 1e-300))
        theta, beta = theta + step[:m], beta + float(step[m])
        if np.abs(step).max() < 1e-10:
            break
    squares = counts.squares - 2 * p * wins + p * p * games
    both = squares + squares.T
    meat = np.zeros((m + 1, m + 1))
    meat[:m, :m] = np.diag(both.sum(1)) - both
    meat[:m, m] = meat[m, :m] = squares.sum(1) - squares.sum(0)
    meat[m, m] = squares.sum()
    inverse = np.linalg.inv(hessian)
    error = float(np.sqrt((inverse @ meat @ inverse)[m, m]))
    half = critical(confidence) * error
    share = float(battles.score.mean())
    return FirstAdvantage(beta, error, beta - half, beta + half, float(expit(beta)), share, len(battles), confidence)
