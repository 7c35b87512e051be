"""Agreement, kappa, alpha, the ceiling, AlpacaEval's analyzer, tables of votes: known answers and other libraries."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.base.errors import UserError
from farm.votes import agreement as agree
from farm.votes.analysis import analyze_annotator, set_agreement
from farm.votes.table import contains_list, from_table, read_votes

CANONICAL = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, np.nan, np.nan, np.nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, np.nan, 3],
        [np.nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, np.nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, np.nan],
    ]
)


def _alpha(data, level):
    items = np.tile(np.arange(data.shape[1]), len(data))
    return agree.alpha(*agree.value_counts(items, data.ravel()), level=level)


@pytest.mark.parametrize(
    ("level", "known"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_krippendorffs_canonical_table(level, known):
    assert _alpha(CANONICAL, level) == pytest.approx(known, abs=5e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_alpha_against_the_library(seed):
    library = pytest.importorskip("krippendorff")
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 3, (4, 15)).astype(float)
    data[generator.random(data.shape) < 0.3] = np.nan
    seen = data[:, (~np.isnan(data)).sum(0) > 1]
    if len(np.unique(seen[~np.isnan(seen)])) < 2:
        return
    for level in ("nominal", "interval"):
        assert _alpha(data, level) == pytest.approx(library.alpha(data, level_of_measurement=level), abs=1e-10)


def test_kappa():
    """The table 20, 5, 10, 15 gives .400."""
    a, b = [1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert agree.kappa(a, b) == pytest.approx(0.4)
    assert agree.kappa(a, b, chance="half") == pytest.approx(2 * 0.7 - 1)
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 3, 100), generator.integers(0, 3, 100)
    assert agree.kappa(x, y) == pytest.approx(metrics.cohen_kappa_score(x, y))


def test_alpaca_evals_docstring():
    """Votes 1111 and 2221: 1 against 1 gives .75, 1 against 3 gives .875."""
    votes = np.array([[1.0, 1, 1, 1], [2, 2, 2, 1]])
    assert set_agreement(votes, None, 1, 1).score == pytest.approx(0.75)
    assert set_agreement(votes, None, 1, 3).score == pytest.approx(0.875)


@pytest.mark.parametrize(("items", "votes_each"), [(30, 4), (30, 2), (7, 5), (1, 6)])
def test_set_agreement_against_the_obvious_loop(items, votes_each):
    from itertools import combinations

    generator = np.random.default_rng(1)
    votes = generator.choice([1.0, 1.5, 2.0], (items, votes_each), p=[0.45, 0.1, 0.45])

    def modes(row):
        values, counts = np.unique(row, return_counts=True)
        return values[counts == counts.max()]

    scores, errors = [], []
    for one in combinations(range(votes_each), 1):
        for two in combinations(range(votes_each), votes_each - 1):
            if not set(one) & set(two):
                each = [np.mean([1 - abs(v[one[0]] - m) for m in modes(v[list(two)])]) for v in votes]
                scores.append(np.mean(each))
                errors.append(np.std(each, ddof=1) / np.sqrt(items) if items > 1 else np.nan)
    found = set_agreement(votes, None, 1, votes_each - 1)
    assert found.score == pytest.approx(np.mean(scores)) and found.pairs == len(scores) and found.items == items
    assert found.standard_error == pytest.approx(np.mean(errors), nan_ok=True)


def test_one_vote_against_thousands_of_others():
    """Every pair of index sets was looked at before: 4e8 here, which did not end."""
    votes = np.repeat([[1.0, 2.0]], [15_000, 5_000], axis=1)
    found = set_agreement(votes, None, 1, 19_999)
    assert found.score == 0.75 and found.error == 0.25 and found.pairs == 20_000


def test_gpt4_cross_annotations(shared_data):
    """README of the data: gpt4_b1 variance 0.149306, price 43.734, time 2717.26 a thousand, P(longer) 0.600."""
    base = shared_data("alpaca_eval/human")
    rows = pd.read_parquet(base / "gpt4_crossannotations_648x4.parquet")
    pairs = pd.read_parquet(base / "crossannotation_pairs_648.parquet")
    merged = rows[rows["annotator"] == "gpt4_b1"].merge(pairs, on="pair_id").reset_index(drop=True)
    found = analyze_annotator(from_table(merged, "gpt4_b1"))
    assert found.variance == pytest.approx(0.149306, abs=1e-6)
    assert found.price_per_1000 == pytest.approx(43.734, abs=1e-3)
    assert found.seconds_per_1000 == pytest.approx(2717.26, abs=0.01)
    assert found.prefer_longer == pytest.approx(0.600, abs=5e-4)
    assert found.labels == 2592 and found.items == 648


def test_majority_curve_against_simulation():
    generator = np.random.default_rng(2)
    item = np.repeat(np.arange(400), 6)
    first = (generator.random(2400) < np.repeat(generator.random(400), 6)).astype(float)
    curve = agree.majority_curve(item, first, 3)
    table = first.reshape(400, 6)
    drawn = []
    for _ in range(300):
        order = generator.permuted(np.broadcast_to(np.arange(6), (400, 6)), axis=1)
        taken = np.take_along_axis(table, order, axis=1)
        drawn.append([(taken[:, 0] == taken[:, 1]).mean(), (taken[:, 0] == (taken[:, 1:4].sum(1) > 1.5)).mean()])
    assert curve[0] == pytest.approx(np.mean(drawn, axis=0)[0], abs=0.01)
    assert curve[2] == pytest.approx(np.mean(drawn, axis=0)[1], abs=0.01)
    assert curve[1] == pytest.approx(curve[0])  # an even majority decides nothing that one vote did not


def test_worth_votes():
    curve = np.array([0.7, 0.7, 0.8, 0.8, 0.85])
    assert agree.worth_votes(0.7, curve) == pytest.approx(1)
    assert agree.worth_votes(0.75, curve) == pytest.approx(2)
    assert agree.worth_votes(0.6, curve) == pytest.approx(0.5)
    assert agree.worth_votes(0.9, curve) == float("inf")


def test_lists_are_recognised():
    assert (
        contains_list("text\n- item")
        and contains_list("1. one")
        and contains_list("  b) letter")
        and contains_list("•x")
    )
    assert not contains_list("a plain sentence - with a dash") and not contains_list("3.14 is pi"[4:])


def test_orders_of_a_pair_are_one_item_and_flip():
    rows = pd.DataFrame(
        {"instruction": "i", "output_1": ["a", "b"], "output_2": ["b", "a"], "preference": [1.0, 2.0], "annotator": "j"}
    )
    votes = from_table(rows, "t")
    assert votes["item"].nunique() == 1 and votes["first"].nunique() == 1
    assert votes["shown"].tolist() == [1.0, 0.0]


def test_annotated_pairs(tmp_path):
    data = {
        "metadata": {"version": "2.0"},
        "annotators": {"x": {"name": "human"}, "y": {"name": "judge"}},
        "comparisons": [
            {
                "id": k,
                "prompt": f"p{k}",
                "response_a": {"text": "one", "model": "m"},
                "response_b": {"text": "two", "model": "n"},
            }
            | {"annotations": {"x": {"pref": "a"}, "y": {"pref": "tie" if k else None}}}
            for k in range(3)
        ],
    }
    (tmp_path / "pairs.json").write_text(json.dumps(data))
    votes = read_votes(tmp_path / "pairs.json")
    assert votes.groupby("annotator")["given"].agg("count").to_dict() == {"human": 3, "judge": 2}
    (tmp_path / "cut.json").write_text(json.dumps(data)[:200])
    with pytest.raises(UserError, match="cut"):
        read_votes(tmp_path / "cut.json")
