"""Agreement, kappa, alpha, the ceiling, AlpacaEval's analyzer: known answers and other libraries."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import agreement as agree
from eval.validate import audit_runs, validate
from eval.votes import contains_list, from_table, read_votes
from farm.errors import UserError

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
    """EVALUATION 3.9: the table 20, 5, 10, 15 gives .400."""
    a, b = [1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert agree.kappa(a, b) == pytest.approx(0.4)
    assert agree.kappa(a, b, chance="half") == pytest.approx(2 * 0.7 - 1)
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 3, 100), generator.integers(0, 3, 100)
    assert agree.kappa(x, y) == pytest.approx(metrics.cohen_kappa_score(x, y))


def test_alpaca_evals_docstring():
    """EVALUATION 3.7: votes 1111 and 2221: 1 against 1 gives .75, 1 against 3 gives .875."""
    votes = np.array([[1.0, 1, 1, 1], [2, 2, 2, 1]])
    assert agree.set_agreement(votes, None, 1, 1).score == pytest.approx(0.75)
    assert agree.set_agreement(votes, None, 1, 3).score == pytest.approx(0.875)


def test_set_agreement_against_the_obvious_loop():
    from itertools import combinations

    generator = np.random.default_rng(1)
    votes = generator.choice([1.0, 1.5, 2.0], (30, 4), p=[0.45, 0.1, 0.45])

    def modes(row):
        values, counts = np.unique(row, return_counts=True)
        return values[counts == counts.max()]

    scores = []
    for one in combinations(range(4), 1):
        for two in combinations(range(4), 3):
            if not set(one) & set(two):
                each = [np.mean([1 - abs(v[one[0]] - m) for m in modes(v[list(two)])]) for v in votes]
                scores.append(np.mean(each))
    assert agree.set_agreement(votes, None, 1, 3).score == pytest.approx(np.mean(scores))


def test_gpt4_cross_annotations(shared_data):
    """README of the data: gpt4_b1 variance 0.149306, price 43.734, time 2717.26 a thousand, P(longer) 0.600."""
    base = shared_data("alpaca_eval/human")
    rows = pd.read_parquet(base / "gpt4_crossannotations_648x4.parquet")
    pairs = pd.read_parquet(base / "crossannotation_pairs_648.parquet")
    merged = rows[rows["annotator"] == "gpt4_b1"].merge(pairs, on="pair_id").reset_index(drop=True)
    found = agree.analyze_annotator(from_table(merged, "gpt4_b1"))
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


def test_llmfao(shared_data):
    """EVALUATION 3.6, 3.11, 0.5: agreement, ceiling, position, correlation, rank correlation of two judges."""
    base = shared_data("human/llmfao")
    humans = read_votes(base / "crowd-comparisons.csv")
    first = humans["first"].to_numpy()
    lone = agree.leave_one_out(humans["item"], first, lone="half").agreement.value
    assert lone == pytest.approx(0.698, abs=5e-4)
    by_item = agree.leave_one_out(humans["item"], first, minimum=3, weight="item").agreement.value
    assert by_item == pytest.approx(0.722, abs=5e-4)
    known = {"gpt4": (0.662, 0.76, 0.455), "gpt3": (0.601, 0.63, 0.695)}
    for name, (agreement, spearman, position) in known.items():
        found = validate(read_votes(base / f"{name}-crowd-comparisons.csv"), humans, rounds=100)
        assert found.agreement.value == pytest.approx(agreement, abs=1e-3)
        assert found.ranks.set_index("statistic").loc["spearman", "value"] == pytest.approx(spearman, abs=5e-3)
        assert found.position.prefers_first.value == pytest.approx(position, abs=5e-4)
        assert found.human_prefers_first == pytest.approx(0.533, abs=5e-4)
        if name == "gpt4":
            assert found.correlation == pytest.approx(0.26, abs=5e-3)
            assert found.ppi_gain == pytest.approx(1.07, abs=5e-3)
            assert found.ppi_gain_mean == pytest.approx(1.16, abs=5e-3)
            assert 0.9 < found.worth_votes < 1.05
            assert 0.84 < found.human_split_half.value < 0.89
            assert json.loads(found.to_json())["items"] == 2139 and "human ceiling" in str(found)


def test_llmbar_runs(shared_data):
    """EVALUATION 3.11: GPT-4 on Natural, ChatGPT on FairEval; every run against scikit-learn's kappa."""
    votes = read_votes(shared_data("human/llmbar") / "judge_runs.csv.gz")
    runs = audit_runs(votes, ["subset", "judge", "strategy"])
    assert len(votes) == 88_912 and len(runs) >= 309
    keyed = runs.set_index(["subset", "judge", "strategy"])
    natural = keyed.loc[("LLMBar/Natural", "GPT-4", "Vanilla_NoRules")]
    assert (natural["accuracy"], natural["consistent"], natural["prefers_first"]) == pytest.approx((0.935, 0.97, 0.505))
    fair = keyed.loc[("Processed/FairEval", "ChatGPT", "Vanilla_NoRules")]
    assert fair["consistent"] == pytest.approx(0.18, abs=5e-3) and fair["prefers_first"] == pytest.approx(
        0.91, abs=5e-3
    )
    metrics = pytest.importorskip("sklearn.metrics")
    for name, run in list(votes.groupby(["subset", "judge", "strategy"]))[::25]:
        seen = run[run["given"].notna()]
        assert keyed.loc[name, "accuracy"] == pytest.approx((seen["winner"] == seen["human_label"]).mean(), abs=1e-14)
        wide = (
            seen.drop_duplicates(["item", "swapped"]).pivot(index="item", columns="swapped", values="winner").dropna()
        )
        assert keyed.loc[name, "consistent"] == pytest.approx((wide[0] == wide[1]).mean(), abs=1e-14)
        kappa = metrics.cohen_kappa_score(wide[0].astype(int), wide[1].astype(int))
        assert keyed.loc[name, "kappa"] == pytest.approx(kappa, abs=1e-12, nan_ok=True)


def test_pandalm(shared_data):
    """EVALUATION 1.3: kappas 0.852 / 0.879 / 0.862; majorities 105 / 422 / 472."""
    base = shared_data("human/pandalm")
    votes = read_votes(base / "testset-v1.json")
    wide = votes.pivot(index="item", columns="annotator", values="given")
    kappas = [agree.kappa(wide.iloc[:, i], wide.iloc[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert kappas == pytest.approx([0.852, 0.879, 0.862], abs=1e-3)
    majority = votes.groupby("item")["given"].agg(lambda v: v.mode().iloc[0] if len(v.mode()) == 1 else np.nan)
    assert majority.value_counts().reindex([0.5, 1.0, 0.0]).tolist() == pytest.approx([105, 422, 472], abs=3)
    found = validate(read_votes(base / "gpt-3.5-turbo-testset-v1.json"), votes, rounds=20)
    assert found.agreement.value > 0.75  # the judge's file has no texts: joined by idx in the file's own order
    assert found.judge == "gpt"


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


def test_disjoint_keys_are_refused():
    table = pd.DataFrame({"pair_id": ["a"], "preference": [1.0], "annotator": ["x"]})
    with pytest.raises(UserError, match="no key in common"):
        validate(from_table(table, "t"), from_table(table.assign(pair_id="b"), "t"))
    with pytest.raises(UserError, match="row 1: `winner` = 'perhaps'"):
        from_table(pd.DataFrame({"id": [1], "winner": ["perhaps"]}), "t")
