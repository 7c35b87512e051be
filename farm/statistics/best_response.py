"""How much the best answer to a policy wins over it, without being fooled by the best of many noisy numbers.

    gap = 2 (max over y of P(y > pi | x) - 1/2), mean over x

is the duality gap of the symmetric preference game without KL: 0 at a Nash equilibrium, 1 if some answer always wins.
The maximum is taken over answers at hand, so what is estimated is a lower bound of the gap; and the answer is chosen
by one half of the policy's samples and measured on the other, the halves changing places, so that it is not too high.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from farm.base.arrays import Floats


def best_response(wins: Floats, own: NDArray[np.int64]) -> Floats:
    """Each prompt's win rate of its best answer against the policy that wrote the answers ``own``, [S].

    Args:
        wins: P(answer a beats answer b | prompt), NaN where it is not known, [S, A, A].
        own: the policy's answers, at least two of the A.

    Returns:
        NaN where no answer has a known win rate against both halves.

    Raises:
        ValueError: fewer than two answers.
    """
    if len(own) < 2:
        raise ValueError("a best response takes at least two answers of the policy: one half chooses, the other judges")
    found = [_held_out(wins, own[half::2], own[1 - half :: 2]) for half in (0, 1)]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.mean(found, axis=0))


def gap(wins: Floats | float) -> Floats | float:
    """The duality gap of a game whose best responses win this much: 2 (win - 1/2), at least 0."""
    return np.maximum(0.0, 2 * (np.asarray(wins) - 0.5))


def _held_out(wins: Floats, choosing: NDArray[np.int64], held: NDArray[np.int64]) -> Floats:
    scores = _mean(wins[:, :, choosing])
    scores[:, held] = np.nan  # an answer does not meet itself
    worth = np.where(np.isnan(scores), -np.inf, scores)
    best = worth.argmax(1)
    rows = np.arange(len(wins))
    value = _mean(wins[rows, best][:, held])
    return np.where(np.isfinite(worth[rows, best]), value, np.nan)


def _mean(values: Floats) -> Floats:
    """Over the last axis, of the numbers that are there; NaN where there are none."""
    there = ~np.isnan(values)
    count = there.sum(-1)
    return np.asarray(np.where(count > 0, np.where(there, values, 0.0).sum(-1) / np.maximum(count, 1), np.nan))
