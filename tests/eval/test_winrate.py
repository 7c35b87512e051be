"""Win rates: known answers, the textbook formula, clusters, pairing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.rates.winrate import discrete, scores, win_rate
from farm.base.errors import UserError
from farm.statistics.uncertainty import joint_means, mean


def _table(preference, instruction=None, **columns):
    n = len(preference)
    return pd.DataFrame(
        {
            "instruction": [f"i{k}" for k in range(n)] if instruction is None else instruction,
            "generator_1": "baseline",
            "generator_2": "method",
            "preference": preference,
            **columns,
        }
    )


def test_ties_are_half_and_missing_is_counted_by_status():
    table = _table([2.0, 1.0, 1.5, np.nan, np.nan, 0.0], status=["ok", "ok", "ok", "refused", "unparseable", "ok"])
    w = win_rate(table)
    assert (w.wins, w.losses, w.ties, w.n) == (1, 1, 2, 4)
    assert w.win_rate == 0.5
    assert w.missing == {"refused": 1, "unparseable": 1}
    assert w.standard_error == pytest.approx(np.std([1, 0, 0.5, 0.5], ddof=1) / 2)


def test_discrete_rounds_probabilities():
    assert discrete(scores([1.2, 1.5, 1.7])).tolist() == [0, 0.5, 1]


def test_a_preference_outside_the_range_names_its_row():
    with pytest.raises(UserError, match="row 1: preference 3"):
        scores([1.0, 3.0])


def test_two_baselines_are_refused():
    table = _table([1.0, 2.0])
    table.loc[1, "generator_1"] = "another"
    with pytest.raises(UserError, match="row 1: the baseline is `another`"):
        win_rate(table)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=40), st.integers(2, 5))
def test_duplicated_rows_leave_the_clustered_error_unchanged(values, k):
    """With every row k times, the naive error shrinks by sqrt(k), the clustered one does not."""
    x = np.array(values)
    once = mean(x)
    again = mean(np.repeat(x, k), np.repeat(np.arange(x.size), k))
    assert again.value == pytest.approx(once.value)
    assert again.standard_error == pytest.approx(once.standard_error, abs=1e-12)


def test_two_way_clusters_against_the_obvious_sum():
    generator = np.random.default_rng(1)
    x, a, b = generator.normal(size=300), generator.integers(0, 20, 300), generator.integers(0, 15, 300)
    r = x - x.mean()

    def one_way(labels):
        groups = [r[labels == g].sum() ** 2 for g in set(labels)]
        return len(groups) / (len(groups) - 1) * sum(groups) / 300**2

    both = np.array([f"{i}-{j}" for i, j in zip(a, b)])
    expected = max(one_way(a) + one_way(b) - one_way(both), one_way(a), one_way(b))
    assert mean(x, a, b).standard_error == pytest.approx(np.sqrt(expected))


def test_joint_means_is_the_paired_formula():
    generator = np.random.default_rng(2)
    a, b = generator.random(50), generator.random(50)
    joint = joint_means(np.r_[a, b], ["a"] * 50 + ["b"] * 50, np.r_[np.arange(50), np.arange(50)])
    v = joint.covariance
    assert v[0, 0] + v[1, 1] - 2 * v[0, 1] == pytest.approx((a - b).var(ddof=1) / 50)


def test_a_result_prints_and_is_plain_data():
    w = win_rate(_table([2.0, 1.0, 1.5, np.nan]))
    assert "win_rate" in str(w) and "<table" in w._repr_html_()
    data = json.loads(w.to_json())
    assert data["missing"] == {"missing": 1} and data["clustered_by"] == ["instruction"]


def test_alpaca_eval_2_reproduces_published_win_rates(shared_data):
    """Win rate, standard error, wins, draws and totals equal the published rows."""
    base = shared_data("alpaca_eval")
    table = pd.read_parquet(base / "annotations_alpaca_eval_2_weighted_gpt4_turbo.parquet")
    published = pd.read_csv(base / "leaderboards/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv", index_col=0)
    seen = 0
    for model, own in table.groupby("model_dir", observed=True):
        if model not in published.index:
            continue
        row = win_rate(own, clusters=("instruction_id",)).alpaca_eval()
        for column, value in row.items():
            assert value == pytest.approx(published.loc[model, column], abs=1e-6), (model, column)
        seen += 1
    assert seen >= 38
