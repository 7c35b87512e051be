"""Intervals of shares hold at the edge: coverage summed over all outcomes, and simulated where rows are clustered."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.evaluators.evaluation import evaluate_table
from eval.ranks import ranking
from eval.rates.prediction_powered import gain, ppi
from eval.rates.winrate import win_rate
from farm.statistics.uncertainty import (
    DIFFERENCE,
    SHARE,
    critical,
    difference_limits,
    joint_means,
    limits,
    mean,
    p_values,
    student,
)  # fmt: skip
from farm.votes.agreement import leave_one_out


def _table(preference, instruction=None, method="method"):
    n = len(preference)
    return pd.DataFrame(
        {
            "instruction": [f"i{k}" for k in range(n)] if instruction is None else instruction,
            "generator_1": "baseline",
            "generator_2": method,
            "preference": preference,
        }
    )


@pytest.mark.parametrize("n", [5, 10, 30])
@pytest.mark.parametrize("p", [0.5, 0.95, 1.0])
def test_a_win_rate_covers_with_few_rows_and_at_the_edge(n, p):
    """Exact: every number of wins by its probability. Student's interval covers 22.6 % at n = 5 and p = .95."""
    covered = 0.0
    for wins, chance in enumerate(stats.binom.pmf(np.arange(n + 1), n, p)):
        w = win_rate(_table(np.r_[np.full(wins, 2.0), np.full(n - wins, 1.0)]))
        assert 0 <= w.low <= w.win_rate <= w.high <= 1 and w.high - w.low > 0.05
        covered += chance * (w.low <= p <= w.high)
    assert covered >= 0.935


def test_ten_wins_of_ten_are_not_certain():
    """Wilson's interval of 10 of 10 with Student's critical value of 9 degrees: n / (n + t^2)."""
    w = win_rate(_table([2.0] * 10))
    assert (w.win_rate, w.standard_error, w.high) == (1.0, 0.0, 1.0)
    assert w.low == pytest.approx(10 / (10 + stats.t.ppf(0.975, 9) ** 2))
    lost = win_rate(_table([1.0] * 10))
    assert (lost.low, lost.high) == pytest.approx((1 - w.high, 1 - w.low))


def test_one_instruction_is_too_few_to_say_anything():
    w = win_rate(_table([2.0, 2.0, 1.0], instruction=["a", "a", "a"]))
    assert np.isnan([w.low, w.high, w.standard_error]).all()


def test_equal_rows_of_a_cluster_count_once_at_the_edge():
    once, again = win_rate(_table([2.0] * 8)), win_rate(_table([2.0] * 40, instruction=np.repeat(np.arange(8), 5)))
    assert (again.low, again.high) == (once.low, once.high)
    uneven = mean([1.0] * 40, np.r_[np.zeros(33), np.arange(1, 8)], bounds=SHARE)  # 33 rows of one instruction
    assert uneven.low < once.low


def test_far_from_the_edge_it_is_students_interval():
    """The win rates of AlpacaEval's size are as they were, to a hundredth of the interval."""
    x = np.random.default_rng(0).beta(0.4, 0.5, 805)
    bounded, free = mean(x, bounds=SHARE), mean(x)
    assert (bounded.value, bounded.standard_error) == (free.value, free.standard_error)
    assert [bounded.low, bounded.high] == pytest.approx([free.low, free.high], abs=0.01 * (free.high - free.low))


def test_quantiles_and_ranks_are_those_of_scipy_stats():
    """To the bit, from parts that import in a tenth of its time."""
    degrees = np.r_[1, 1.5, 2, 5.5, 30, 1e6, np.inf]
    for confidence in (0.5, 0.9, 0.95, 0.999):
        level = (1 + confidence) / 2
        assert np.array_equal(student(degrees, confidence), stats.t.ppf(level, degrees))
        assert critical(confidence, 7) == stats.t.ppf(level, 7) and critical(confidence) == stats.norm.ppf(level)
    far = np.r_[0.01, 0.3, 2, 40, np.nan][:, None]
    assert np.array_equal(p_values(far, 0.1, degrees), 2 * stats.t.sf(far / 0.1, degrees), equal_nan=True)
    values = np.random.default_rng(0).integers(0, 4, (3, 5, 7)) / 3
    assert np.array_equal(ranking.ranks(values), stats.rankdata(values, axis=-1))
    assert np.array_equal(ranking.positions(values), stats.rankdata(-values, method="min", axis=-1))
    assert ranking.ranks(values[:0]).shape == (0, 5, 7) and ranking.ranks(values[..., :0]).shape == (3, 5, 0)


def test_it_turns_with_the_scale():
    """The interval of 1 - s is the other one turned, that of 2 s - 1 between -1 and 1 is it stretched."""
    x = np.random.default_rng(1).choice([0, 0.5, 1], 20, p=[0.1, 0.1, 0.8])
    e, turned, wide = mean(x, bounds=SHARE), mean(1 - x, bounds=SHARE), mean(2 * x - 1, bounds=DIFFERENCE)
    assert [turned.low, turned.high] == pytest.approx([1 - e.high, 1 - e.low])
    assert [wide.low, wide.high] == pytest.approx([2 * e.low - 1, 2 * e.high - 1])


def test_two_methods_that_always_won_may_differ():
    a, b = _table([2.0] * 10, method="a"), _table([2.0] * 10, method="b")
    row = evaluate_table(pd.concat([a, b], ignore_index=True)).differences.iloc[0]
    assert -100 < row["low"] < 0 < row["high"] < 100


def test_differences_end_at_all_or_nothing_and_agree_with_their_p_value():
    low, high = difference_limits([0.9, 0.2], [0.2, 0.1], 12)
    assert high[0] == 1.0 and low[0] == pytest.approx(0.9 - stats.t.ppf(0.975, 11) * 0.2)
    assert (low[1] > 0) == (2 * stats.t.sf(2.0, 11) < 0.05)


@pytest.mark.parametrize("seed", range(8))
def test_a_difference_that_is_always_the_same_has_no_standard_error_to_go_by(seed):
    """Failed where rounding left one of 1e-9: an interval of no width, and a p-value of 0."""
    first = 0.8 * np.random.default_rng(seed).random(30)
    joint = joint_means(np.concatenate([first, first + 0.1]), np.repeat(["a", "b"], 30), np.tile(np.arange(30), 2))
    v = joint.covariance
    error = np.sqrt(max(v[0, 0] + v[1, 1] - 2 * v[0, 1], 0))
    for error in (error, mean(first + 0.1 - first).standard_error, 0.0):
        low, high = difference_limits(0.1, error, 30)
        assert (low, high) == pytest.approx(tuple(difference_limits(0.1, 0.0, 30)))
        assert high - low > 0.1 and np.isnan(p_values(0.1, error, 29))
    assert p_values(0.1, 1e-6, 29) < 1e-6


def test_boards_and_single_win_rates_have_one_interval():
    g = np.random.default_rng(2)
    x, where = (g.random(60) < 0.9).astype(float), g.integers(0, 15, 60)
    one = win_rate(_table(1 + x, instruction=where))
    joint = joint_means(x, ["m"] * 60, where)
    assert joint.limits()[0][0] == pytest.approx(one.low) and joint.limits()[1][0] == pytest.approx(one.high)
    assert joint.estimate(0, bounds=SHARE).low == pytest.approx(one.low)


def test_a_judge_that_never_errs_on_the_pairs_at_hand_has_no_gain_of_quadrillions():
    y = np.array([0, 1, 1, 0, 1, 1, 0, 1], dtype=float)
    assert np.isnan(gain(1.0)) and np.isnan(gain(float(np.corrcoef(y, y)[0, 1])))
    found = ppi(y, y, np.tile(y, 5))
    assert found.effective_n <= 48 and 0 <= found.low < found.value < found.high <= 1
    assert gain(1.0, n=10, judged=30) == pytest.approx(4.0)


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [5, 10, 30])
@pytest.mark.parametrize("p", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("correlation", [0.05, 0.3, 0.8])
def test_clustered_rows_cover_at_the_edge(clusters, p, correlation):
    """Five rows an instruction that go together (beta-binomial). Student's covers 31 to 94 % off one half."""
    g, rounds = np.random.default_rng(3), 4000
    rate = np.ones((rounds, clusters))
    if p < 1:
        total = (1 - correlation) / correlation
        rate = g.beta(p * total, (1 - p) * total, (rounds, clusters))
    x = (g.random((rounds, clusters, 5)) < rate[..., None]).astype(float)
    value = x.mean((1, 2))
    sums = (x - value[:, None, None]).sum(2)
    error = np.sqrt(clusters / (clusters - 1) * np.square(sums).sum(1)) / (5 * clusters)
    low, high = limits(value, error, clusters)
    again = mean(x[0].ravel(), np.repeat(np.arange(clusters), 5), bounds=SHARE)
    assert (low[0], high[0]) == pytest.approx((again.low, again.high))
    assert ((low <= p) & (p <= high)).mean() >= 0.95


def test_a_corrected_win_rate_of_nothing_but_wins_is_bounded_and_not_certain():
    """Ten of ten observed with 10 % flips: 112.5 % [112.5, 112.5] was printed."""
    row = evaluate_table(_table([2.0] * 10), flip_rate=0.1).methods.iloc[0]
    assert row["corrected_high"] == 100 and row["corrected_low"] == pytest.approx((row["win_rate_low"] - 10) / 0.8)


def test_the_ceiling_of_few_votes_stays_a_share():
    """Three pairs, of which one has agreeing votes: .33 [-1.1, 1.77] was printed."""
    e = leave_one_out(np.repeat([0, 1, 2], 2), np.array([1.0, 1.0, 0.0, 1.0, 1.0, 0.0])).agreement
    assert e.value == pytest.approx(1 / 3) and 0 <= e.low < e.value < e.high <= 1
