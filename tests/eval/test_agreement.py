"""Judges beside the votes of humans: known answers of the reference data."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from eval.judge_runs import audit_runs
from eval.validate import validate
from farm.errors import UserError
from farm.votes import agreement as agree
from farm.votes.table import from_table, read_votes


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


def test_disjoint_keys_are_refused():
    table = pd.DataFrame({"pair_id": ["a"], "preference": [1.0], "annotator": ["x"]})
    with pytest.raises(UserError, match="no key in common"):
        validate(from_table(table, "t"), from_table(table.assign(pair_id="b"), "t"))
    with pytest.raises(UserError, match="row 1: `winner` = 'perhaps'"):
        from_table(pd.DataFrame({"id": [1], "winner": ["perhaps"]}), "t")
