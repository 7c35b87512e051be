"""Groupwise regret: experts by hand, and what groups that differ, or do not, cost one regression for all."""

from __future__ import annotations

import numpy as np
import pytest

from farm.base import rng
from reference_methods.studies.groupwise import GROUPS, Groupwise, best_line

SMALL = Groupwise(rounds=600)


def test_an_expert_is_the_ridge_regression_of_the_rounds_before() -> None:
    x, y, inside = SMALL.drawn(rng.generator(1, "test"))
    forecasts = SMALL.experts(x, y, inside)
    assert (np.isnan(forecasts) == ~inside).all() and inside[:, 0].all() and (inside.sum(1) == 3).all()
    for t in (0, 1, 7, 300):
        for g in np.flatnonzero(inside[t]):
            rows = np.flatnonzero(inside[:t, g])
            fitted = np.linalg.solve(x[rows].T @ x[rows] + np.eye(5), x[rows].T @ y[rows])
            assert forecasts[t, g] == pytest.approx(x[t] @ fitted, abs=1e-9)


def test_two_rounds_of_sleeping_experts_by_hand() -> None:
    forecasts, y = np.array([[1.0, 3.0], [2.0, np.nan], [0.0, 4.0]]), np.array([1.0, 0.0, 0.0])
    found = Groupwise(eta=30.0).sleeping(forecasts, y, ~np.isnan(forecasts))
    # round 1: both count alike, 2, losses 0, 4 and 1; then 30 (0 - 1) / 30 = -1 and 30 (4 - 1) / 30 = 3
    assert found[:2] == pytest.approx([2.0, 2.0])  # the second sleeps, and the one that is awake changes nothing
    assert found[2] == pytest.approx(4 * np.exp(-3) / (np.exp(1) + np.exp(-3)))


def test_with_one_group_the_sleeping_mean_is_the_global_regression() -> None:
    x, y, inside = SMALL.drawn(rng.generator(2, "test"))
    inside[:, 1:] = False
    forecasts = SMALL.experts(x, y, inside)
    assert (SMALL.sleeping(forecasts, y, inside) == forecasts[:, 0]).all()


def test_sleeping_experts_have_less_regret_in_every_group_and_cost_something_without_groups() -> None:
    """[trend] at a quarter of the rounds, over four draws."""

    def mean(differences: float) -> dict[tuple[str, str], float]:
        study = Groupwise(rounds=1000, differences=differences)
        found = [study.tables(seed)["regret"].set_index(["method", "group"])["regret"] for seed in range(4)]
        return {key: float(np.mean([table[key] for table in found])) for key in found[0].index}

    apart, alike = mean(1.0), mean(0.0)
    assert all(apart["sleeping", group] < apart["global", group] for group in GROUPS)
    assert apart["sleeping", "persona 2"] < 0 < apart["global", "persona 1"] < apart["global", "persona 2"]
    assert 0 < alike["global", "everyone"] < alike["sleeping", "everyone"] < 0.1


def test_the_best_line_of_what_lies_on_a_line_loses_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    assert best_line(x, x @ np.array([1.0, -2.0, 0.5])) == pytest.approx(0, abs=1e-20)
