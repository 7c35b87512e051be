"""Best responses from samples: known games, and no reward for noise."""

from __future__ import annotations

import numpy as np
import pytest

from farm.statistics.best_response import best_response, gap

CIRCLE = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
"""rock, scissors, paper: each beats the next"""


def _wins(kinds: np.ndarray) -> np.ndarray:
    return np.asarray(CIRCLE[kinds[:, :, None], kinds[:, None, :]])


def test_a_pure_policy_is_beaten_by_the_answer_that_beats_it() -> None:
    kinds = np.array([[0, 0, 0, 0, 2, 1]])  # four rocks of the policy, and a paper and scissors of others
    assert best_response(_wins(kinds), np.arange(4)) == pytest.approx([1.0])


def test_the_equilibrium_cannot_be_beaten() -> None:
    draw = np.random.default_rng(1).integers(0, 3, (4000, 40))  # the policy mixes evenly
    kinds = np.concatenate([draw, np.tile([0, 1, 2], (4000, 1))], axis=1)
    found = best_response(_wins(kinds), np.arange(40))
    assert found.mean() == pytest.approx(0.5, abs=0.01)
    assert gap(float(found.mean())) < 0.02


def test_choosing_the_luckiest_of_many_equal_answers_gains_nothing() -> None:
    rng = np.random.default_rng(2)
    coin = rng.integers(0, 2, (3000, 30, 30)).astype(float)
    coin = np.triu(coin, 1) + np.tril(1 - coin.transpose(0, 2, 1), -1) + np.eye(30) / 2
    found = best_response(coin, np.arange(4))
    assert found.mean() == pytest.approx(0.5, abs=0.02)
    naive = coin[:, :, :4].mean(2).max(1).mean()
    assert naive > 0.8  # what the same numbers say without holding out


def test_missing_verdicts_are_left_out() -> None:
    wins = _wins(np.array([[0, 0, 2], [0, 0, 2]]))
    wins[1, 2] = np.nan
    wins[1, :, 2] = np.nan
    assert best_response(wins, np.arange(2)) == pytest.approx([1.0, 0.5])
    wins[1] = np.nan
    assert np.isnan(best_response(wins, np.arange(2))[1])
    with pytest.raises(ValueError, match="two answers"):
        best_response(wins, np.array([0]))
