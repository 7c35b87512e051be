"""Elo ratings after one pass in the given order: for streams; they depend on the order, Bradley-Terry does not."""

from __future__ import annotations

import pandas as pd

from eval.ratings.battles import Battles


def elo(battles: Battles, *, k: float = 4.0, start: float = 1000.0) -> pd.Series:
    """Elo ratings after one pass in the given order, by model. Depends on the order: for streams, not leaderboards."""
    rating = [start] * len(battles.models)
    for i, j, s in zip(battles.first.tolist(), battles.second.tolist(), battles.score.tolist(), strict=True):
        expected = 1 / (1 + 10 ** ((rating[j] - rating[i]) / 400))
        change = k * (s - expected)
        rating[i] += change
        rating[j] -= change
    return pd.Series(rating, index=list(battles.models), name="elo").sort_values(ascending=False)
