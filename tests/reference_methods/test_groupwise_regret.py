"""Sleeping regressions: the update, and regret by group."""

import numpy as np
import pytest

from reference_methods.studies.groupwise_regret import GroupwiseRegret, learn, loss


def test_one_group_is_online_ridge_regression() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(60, 3)), draws.normal(size=60)
    found = learn(x, y, np.ones((1, 60), bool), eta=0.5)
    for t in (0, 1, 30, 59):
        v = np.linalg.solve(x[:t].T @ x[:t] + np.eye(3), x[:t].T @ y[:t])
        assert found[t] == pytest.approx(float(loss(x[t] @ v, y[t])))


def test_groups_that_are_the_same_change_nothing_and_one_that_never_wakes_does_not_count() -> None:
    draws = np.random.default_rng(1)
    x, y = draws.normal(size=(50, 2)), draws.normal(size=50)
    one, three = (learn(x, y, np.ones((n, 50), bool), 0.5) for n in (1, 3))
    assert three == pytest.approx(one)
    asleep = np.concatenate([np.ones((1, 50), bool), np.zeros((1, 50), bool)])
    assert learn(x, y, asleep, 0.5) == pytest.approx(one)


def test_regret_is_small_in_every_group_for_the_sleeping_learner_alone() -> None:
    """[trend]"""
    table = GroupwiseRegret(rounds=1500).tables(3)["regret"].pivot(index="group", columns="method", values="regret")
    groups = table.drop(index="everyone")
    assert (groups["sleeping"] < groups["global"]).all() and groups["sleeping"].max() < 0.02 < groups["global"].max()


def test_a_loss_is_cut_at_one() -> None:
    assert loss(np.array([0.0, 3.0, 100.0]), 0.0).tolist() == [0.0, pytest.approx(0.3), 1.0]
