"""Numbers at the ends of what 64 bits can hold: a plan with finite numbers, or one sentence."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from annotators.calibration.summary import _split
from annotators.runs.annotation_summary import sentences
from eval.face.api import power
from eval.ranks.true_ranks import _solved, correlation_intervals
from eval.rates.winrate import scores
from farm.base.errors import UserError
from farm.votes.noise import SplitFit
from reference_methods.face.game_command import check_strengths

ODD = [0.0, -1.0, 1e-320, 1e-308, 1e-17, 0.49999999999999994, 1 - 1e-16, 5.0, 1e21, 1e308, math.inf, math.nan]
SETTINGS = ["flip_rate", "design_effect", "per_cluster", "icc", "variance", "power", "significance"]


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("given", [{"difference": 5.0}, {"annotations": 100}])
@pytest.mark.parametrize("name", SETTINGS)
def test_power_with_odd_settings(name, given, paired):
    for value in ODD:
        _planned(**given, **{"per_cluster": 5.0} if name == "icc" else {}, **{name: value}, paired=paired)


@pytest.mark.parametrize("paired", [False, True])
def test_power_of_odd_differences_and_numbers(paired):
    for value in ODD:
        _planned(difference=value, paired=paired)
    for number in (-(10**400), -1, 0, 1, 2, 10**15, 10**21, 10**400):
        _planned(annotations=number, paired=paired)


def _planned(**settings):
    try:
        plan = power(**settings)
    except UserError as error:
        assert len(str(error)) < 300
        return
    numbers = [v for v in json.loads(plan.to_json()).values() if not isinstance(v, bool)]
    assert all(v is not None and math.isfinite(v) for v in numbers), settings


def test_a_plan_is_printed_in_percent_points_as_it_was_asked():
    printed = str(power(3))
    assert power(3).table()["difference_points"][0] == pytest.approx(3)
    assert "0.03" not in printed


@pytest.mark.parametrize("value", [1e-320, 1e-308, 1e21, 1e308, math.inf, math.nan, -1.0])
def test_strengths_of_games_that_cannot_be_computed_with_are_refused(value):
    with pytest.raises(UserError, match="a number from 1e-06 to 1e"):
        check_strengths(value, None)
    with pytest.raises(UserError, match="a number from 1e-06 to 1e"):
        check_strengths(None, value)


def test_a_preference_just_outside_is_shown_with_all_its_digits():
    with pytest.raises(UserError, match=r"preference 2\.0000001 is outside \[1, 2\]"):
        scores([1.0, 2.0000001])


def test_shares_are_shown_as_shares_and_a_rejection_with_its_level():
    assert "from store 100 %" in sentences({"from_store": 1.0})
    fit = SplitFit("flip", 0.0, 0.2, 9.7, 4, 0.031, 100, 5, (), ())
    assert _split(fit).endswith("p 0.031: not rejected at 1 %")


def test_methods_that_all_do_the_same_have_a_rank_correlation_that_is_not_known():
    """Equal scores with equal errors: a covariance of rank 1, which ended the evaluation for one seed in four."""
    errors = np.repeat(np.random.default_rng(0).normal(size=(4, 1)), 8, axis=1) * ([1.0] * 4 + [2.0] * 4)
    for seed in range(3):
        found = correlation_intervals(np.full(4, 0.5), np.full(4, 0.4), errors.T @ errors, rounds=2000, seed=seed)
        assert found == {"spearman": (-1.0, 1.0), "kendall": (-1.0, 1.0)}
    assert _solved(np.ones((1, 2, 2)), np.ones((1, 2, 1))).ravel() == pytest.approx([0.5, 0.5])  # exactly singular
