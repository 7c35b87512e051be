"""Intransitivity: how many triples of models form a cycle (a beats b, b beats c, c beats a).

In a tournament of n models with w_i pairs won, the cyclic triads are c = n(n-1)(2n-1)/12 - sum(w_i^2)/2 (Kendall and
Babington Smith 1940). A quarter of all triples is chance; Bradley-Terry expects few, and more where models are close,
so the count is set beside what the fitted ratings would give at the same numbers of battles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from farm.base import rng
from farm.base.arrays import Floats
from farm.statistics.result import Result


@dataclass(frozen=True)
class Cycles(Result):
    """Cyclic triples among those whose three pairs all met often enough and were decided."""

    cyclic: int
    triples: int
    share: float
    expected_share: float
    """under the fitted Bradley-Terry ratings, with the same numbers of battles; missing without ratings"""
    minimum_games: int
    rounds: int
    seed: int


def _count(beats: Floats) -> tuple[float, float]:
    """Cyclic and all triples of a partial tournament [M, M]: 1 where the row beats the column, 0 elsewhere."""
    met = beats + beats.T
    cyclic = np.trace(beats @ beats @ beats) / 3
    return float(cyclic), float(np.trace(met @ met @ met) / 6)


def cycles(
    wins: Floats, *, theta: Floats | None = None, minimum_games: int = 1, rounds: int = 200, seed: int = 0
) -> Cycles:
    """Cyclic triples of a win matrix [M, M] (wins of row over column; ties count half to both).

    Args:
        theta: ratings to compare with: ``rounds`` boards are drawn from them at the same numbers of games.
        minimum_games: pairs that met less often are left out.
    """
    games = wins + wins.T
    enough = (games >= minimum_games) & (games > 0)
    beats = ((wins > wins.T) & enough).astype(np.float64)
    found, triples = _count(beats)
    expected = float("nan")
    if theta is not None and triples:
        generator = rng.generator(seed, "cycles", len(wins))
        first, second = np.triu_indices(len(wins), 1)
        used = enough[first, second]
        first, second = first[used], second[used]
        number = np.round(games[first, second]).astype(np.int64)
        p = expit(theta[first] - theta[second])
        shares = []
        for _ in range(rounds):
            drawn = generator.binomial(number, p)
            board = np.zeros_like(beats)
            board[first, second] = 2 * drawn > number
            board[second, first] = 2 * drawn < number
            cyclic, total = _count(board)
            shares.append(cyclic / total if total else np.nan)
        expected = float(np.nanmean(shares))
    share = found / triples if triples else float("nan")
    return Cycles(round(found), round(triples), share, expected, minimum_games, rounds, seed)
