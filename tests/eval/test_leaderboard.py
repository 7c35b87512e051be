"""The evaluator of an experiment."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from eval.evaluators.leaderboard import Leaderboard
from farm.base.errors import UserError
from farm.roles.config import build
from farm.roles.protocols import Comparison, Evaluator


def _comparison(seed: int = 0, n: int = 120, shuffle: bool = False) -> Comparison:
    generator = np.random.default_rng(seed)
    strength = {"sft": 0.0, "dpo": 0.6, "ppo": 1.2, "best_of_n": 0.9}
    outputs, judged, gold = [], [], []
    base = generator.normal(size=n)
    for method, lift in strength.items():
        utility = lift + generator.normal(size=n)
        outputs += [
            {"method": method, "sample": 0, "instruction": f"do {i}", "output": "x" * (10 + i), "generator": method}
            | {"gold": utility[i], "proxy": utility[i] + 0.1 * lift}
            for i in range(n)
        ]
        if method == "sft":
            continue
        p = 1 / (1 + np.exp(-(utility - base)))
        for rows, preference in ((judged, 1 + (generator.random(n) < p)), (gold, 1 + p)):
            rows += [
                {"method": method, "sample": 0, "instruction": f"do {i}", "generator_1": "sft", "generator_2": method}
                | {"preference": float(preference[i]), "status": "ok"}
                for i in range(n)
            ]
    judged[3] |= {"preference": np.nan, "status": "refused"}
    tables = {"judge": pd.DataFrame(judged), "gold": pd.DataFrame(gold)}
    if shuffle:
        tables = {k: v.sample(frac=1, random_state=3) for k, v in tables.items()}
    return Comparison(pd.DataFrame(outputs), tables, "sft", seed)


def test_the_tables():
    tables = Leaderboard(rounds=500).evaluate(_comparison())
    board = tables["leaderboard"]
    assert board["method"].tolist()[0] == "ppo" and board["rank"].tolist() == [1, 2, 3, 4]
    sft = board.set_index("method").loc["sft"]
    assert sft["win_rate"] == 50 and sft["standard_error"] == 0
    row = board.set_index("method").loc["dpo"]
    assert row["n_total"] == 119 and row["missing_why"] == "1 refused"
    assert row["win_rate_low"] < row["win_rate"] < row["win_rate_high"]
    assert row["rank_low"] <= row["rank"] <= row["rank_high"]
    assert {"gold", "gold_low", "gold_high", "proxy", "avg_length", "win_rate_gold"} <= set(board.columns)
    agreement = tables["agreement"].set_index(["first", "second"])
    assert agreement.loc[("judge", "gold"), "spearman"] == pytest.approx(1)
    assert agreement.loc[("judge", "gold"), "spearman_low"] > 0
    assert len(tables["pairwise"]) == 6
    assert (tables["pairwise"]["p_holm"] >= tables["pairwise"]["p"]).all()


def test_the_order_of_rows_changes_nothing():
    for one, two in zip(
        Leaderboard(rounds=200).evaluate(_comparison()).values(),
        Leaderboard(rounds=200).evaluate(_comparison(shuffle=True)).values(),
    ):
        pd.testing.assert_frame_equal(one, two, rtol=1e-9)


def test_pairwise_equals_the_paired_formula():
    comparison = _comparison()
    table = comparison.annotations["gold"]
    found = (
        Leaderboard(rounds=50)
        .evaluate(Comparison(comparison.outputs, {"judge": table}, comparison.baseline, 0))["pairwise"]
        .set_index(["first", "second"])
    )
    a = table[table["method"] == "ppo"]["preference"].to_numpy()
    b = table[table["method"] == "dpo"]["preference"].to_numpy()
    row = found.loc[("ppo", "dpo")]
    assert row["difference"] == pytest.approx(100 * (a - b).mean())
    assert row["standard_error"] == pytest.approx(100 * (a - b).std(ddof=1) / np.sqrt(len(a)))


def test_it_plays_the_role_and_refuses_nonsense():
    assert isinstance(build(Evaluator, "leaderboard"), Leaderboard)
    with pytest.raises(UserError, match="confidence"):
        build(Evaluator, {"use": "leaderboard", "confidence": 2.0})
    with pytest.raises(UserError, match="judge"):
        Leaderboard().evaluate(Comparison(_comparison().outputs, {}, "sft", 0))
