"""Choosing what to label next: reproducible, spread over instructions, and worth it where a reward is to be learnt."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from annotators.people.logit import LogitAnnotator
from annotators.runs import active
from annotators.runs.active import STRATEGIES, differences, ensemble, fit, rounds_of
from farm.base.errors import UserError


def test_the_fit_is_a_ridge_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    generator = np.random.Generator(np.random.Philox(1))
    design = generator.normal(size=(300, 4))
    label = (generator.random(300) < expit(design @ [1.0, -1, 0.5, 0])).astype(float)
    known = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10).fit(design, label).coef_[0]
    np.testing.assert_allclose(fit(design, label, np.ones(300)), known, atol=1e-5)


def test_members_agree_where_there_are_labels():
    generator = np.random.Generator(np.random.Philox(2))
    design = generator.normal(size=(400, 2)) * [1.0, 0.0]  # nothing is ever asked along the second feature
    design[:4, 1] = 0.5
    label = (generator.random(400) < expit(design[:, 0])).astype(float)
    members = ensemble(design, label, 0, 1)
    known, unknown = (expit(np.array(x) @ members.T).std() for x in ([0.5, 0.0], [0.0, 4.0]))
    assert unknown > 3 * known


@pytest.fixture
def crowd(features_of):
    generator = np.random.Generator(np.random.Philox(3))
    table = {f"f{k}": generator.normal(size=60) for k in range(4)}
    return LogitAnnotator(features_of(gold={"f0": 2.0, "f1": -1.0}, **table), name="p")


@pytest.fixture
def candidates():
    rows = [(f"x {i}", str(6 * i + a), str(6 * i + b)) for i in range(10) for a in range(6) for b in range(a)]
    return pd.DataFrame(rows, columns=["instruction", "output_1", "output_2"])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_labels_are_spread_reproducible_and_never_asked_twice(strategy, crowd, candidates):
    def run(pairs):
        ask = lambda p: crowd.annotate(p, seed=1)  # noqa: E731
        return pd.concat(rounds_of(pairs, ask, crowd.features, strategy, labels=60, rounds=6, seed=4))

    table = run(candidates)
    assert len(table) == 60 and not table.duplicated(["instruction", "output_1", "output_2"]).any()
    assert table.groupby("round")["instruction"].nunique().eq(10).all()  # ten a round, one of each instruction
    again = run(candidates)
    pd.testing.assert_frame_equal(table, again)
    with pytest.raises(UserError, match="name fewer"):
        list(rounds_of(candidates, None, crowd.features, strategy, labels=999))


def test_a_duel_is_between_two_champions(crowd, candidates):
    design = differences(candidates, crowd.features)
    truth = fit(design, 2.0 - crowd.annotate(candidates, seed=0)["preference"].to_numpy(), np.ones(len(design)))
    members = np.repeat(truth[None], active.MEMBERS, axis=0)  # of one mind: the best two of each instruction
    instruction = pd.factorize(candidates["instruction"])[0]
    lottery = np.random.Generator(np.random.Philox(5)).random(len(candidates))
    worth = active._duels(design, candidates, members, instruction, lottery)
    chosen = candidates[worth > 1]
    assert len(chosen) == 10 and chosen["instruction"].nunique() == 10
    value = crowd.features.table[["f0", "f1", "f2", "f3"]].to_numpy()
    scale = np.concatenate([value[candidates[c].astype(int)] for c in ("output_1", "output_2")]).std(axis=0)
    score = (value / scale) @ truth
    for _, row in chosen.iterrows():
        group = int(row["instruction"].split()[1])
        best = set((6 * group + np.argsort(-score[6 * group : 6 * group + 6])[:2]).astype(str))
        assert {row["output_1"], row["output_2"]} == best


def test_the_command_chooses(annotate, tmp_path):
    rows = [
        {"instruction": f"Do {i}.", "output": "word " * (k + 1), "generator": str(k)}
        for i in range(8)
        for k in range(4)
    ]
    (tmp_path / "outputs.json").write_text(json.dumps(rows))
    command = [tmp_path / "outputs.json", "--annotators", "evaluation", "--active", "disagreement", "--out"]
    told = json.loads(annotate(*command, tmp_path / "o.json", "--labels", 24, "--rounds", 3, "--json"))
    assert told["verdicts"] == 24
    assert {row["round"] for row in json.loads((tmp_path / "o.json").read_text())} == {1, 2, 3}
    plan = json.loads(annotate(*command, tmp_path / "o.json", "--labels", 24, "--dry-run", "--json"))
    assert plan["candidates"] == 48 and plan["verdicts"] == 24
    with pytest.raises(UserError, match="--labels N"):
        annotate(*command, tmp_path / "o.json")
