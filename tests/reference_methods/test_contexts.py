"""Contexts: what a model without one cannot say, what the mixture can, and a reward model that reads one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import farm
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy
from reference_methods.models.reward_model import RewardModel
from reference_methods.parts.preferences import Preferences
from reference_methods.studies.contexts import CIRCLE, Contexts, in_contexts, population
from tests.policies.conftest import make_policy
from tests.reference_methods.tables import recorder


def test_without_a_context_exactly_one_of_two_opposite_preferences_is_right() -> None:
    table = Contexts(pairs=400).tables(1)["reversals"]
    none = table[table["method"] == "none"]
    assert len(none) > 200 and set(none["right"]) == {0.5}
    assert table[table["method"] == "given"]["right"].mean() > 0.85


@pytest.mark.parametrize("inference", [0.0, 0.5, 1.0])
def test_accuracy_is_linear_in_how_often_the_context_is_inferred_right(inference: float) -> None:
    def right(share: float) -> float:
        table = Contexts(pairs=600, inference=share).tables(2)["reversals"]
        return float(table[table["method"] == "inferred"]["right"].mean())

    assert right(inference) == pytest.approx(inference * right(1) + (1 - inference) * right(0))
    table = Contexts(pairs=600).tables(2)["reversals"]
    assert right(1) == pytest.approx(table[table["method"] == "given"]["right"].mean())


def test_the_error_is_at_most_that_of_inferring_a_context_and_that_of_predicting_within_it() -> None:
    """|sum_c q(c) P'(c) - P(c*)| <= (1 - q(c*)) + |P'(c*) - P(c*)|, of a fitted model; with q(c*) = 1 equal."""
    study, draws = Contexts(), np.random.default_rng(4)
    tastes = study.tastes() / study.temperature
    x, context = draws.normal(size=(3000, 4)), draws.integers(3, size=3000)
    label = np.where(draws.uniform(size=3000) < expit((x * tastes[context]).sum(1)), 1.0, -1.0)
    found, true = expit(x @ in_contexts(x, context, label).T), expit(x @ tastes.T)
    within = np.abs(found - true)
    for sure in (0.0, 0.7, 1.0):
        guess = np.full((3, 3), (1 - sure) / 2) + np.eye(3) * (sure - (1 - sure) / 2)
        error = np.abs(found @ guess - true)
        assert (error <= (1 - sure) + within + 1e-12).all() and (sure < 1 or np.allclose(error, within))
    assert within.mean() < 0.05


def test_two_thirds_prefer_each_style_to_the_next_and_one_reward_cannot_say_so() -> None:
    world = Contexts()
    tastes = world.tastes() / world.temperature
    assert ((CIRCLE @ tastes.T > 0).sum(1) == 2).all()
    assert population(tastes, CIRCLE).min() > 0.54
    one = np.tile(np.random.default_rng(1).normal(size=4), (3, 1))
    assert population(one, CIRCLE).min() <= 0.5


def test_the_mixture_finds_the_population_and_the_circle() -> None:
    tables = Contexts(pairs=6000).tables(1)
    error = tables["population"].groupby("method")["error"].mean()
    assert error["mixture"] < 0.02 < error["none"]
    least = tables["cycle"].set_index("method")["least"]
    assert least["mixture"] > 0.02 and least["none"] <= 0


def test_contexts_that_mean_nothing_teach_nothing() -> None:
    tables = [Contexts(pairs=1000).tables(seed)["reversals"] for seed in range(4)]
    right = pd.concat(tables).groupby("method")["right"].mean()
    assert right["shuffled"] == pytest.approx(0.5, abs=0.04)
    alike = pd.concat([Contexts(differ=0).tables(seed)["pairs"] for seed in range(4)]).groupby("method")["right"].mean()
    assert alike["given"] == pytest.approx(alike["none"], abs=0.02)


def test_each_context_has_weights_of_its_own() -> None:
    draws = np.random.default_rng(3)
    x, context = draws.normal(size=(4000, 2)), draws.integers(3, size=4000)
    signs = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0]])
    label = np.where((x * signs[context]).sum(1) + draws.logistic(size=4000) > 0, 1.0, -1.0)
    found = in_contexts(x, context, label)
    assert np.sign(found[[0, 1, 2], [0, 0, 1]]).tolist() == [1, -1, 1]
    assert found == pytest.approx(signs, abs=0.4)


OUTPUTS = ["w30 w31", "w32", "w33 w34 w35", "w36", "w37 w38", "w39"]


@pytest.fixture
def policy() -> Policy:
    return make_policy()


def turning(policy: Policy) -> Learning:
    """Each pair twice: preferred one way in context w20, and the other way in w21."""
    rows = [
        (f"w{k}", OUTPUTS[k % 6], OUTPUTS[(k + 1 + k // 6) % 6], context, 1.0 + (k % 2 == (context == "w20")))
        for k in range(12)
        for context in ("w20", "w21")
    ]
    pairs = pd.DataFrame(rows, columns=["instruction", "output_1", "output_2", "context", "preference"])
    return Learning(seed=1, policy=policy, prompts=pairs[["instruction"]], feedback={"pairs": pairs})


def test_a_context_stands_before_the_prompt_and_changes_no_response(policy: Policy) -> None:
    given = turning(policy)
    plain, placed = Preferences.read(given), Preferences.read(given, "context")
    assert placed.first.prompts[:2] == ["w20 w0", "w21 w0"] and placed.first.outputs == plain.first.outputs
    expected = policy.encode(["w20 w0"], ["w39"]).prompt_tokens[0]
    assert placed.second.prompt_tokens[0].tolist() == expected.tolist()
    tokens = zip(placed.second.response_tokens, plain.second.response_tokens, strict=True)
    assert all(np.array_equal(one, other) for one, other in tokens)


def test_a_reward_model_learns_opposite_preferences_with_the_context_alone(policy: Policy) -> None:
    given, losses = turning(policy), {}
    for context in (None, "context"):
        metrics, log = recorder()
        model = RewardModel(
            context=context,
            epochs=30,
            batch_size=24,
            learning_rate=0.02,
            schedule="constant",
            held_out_share=0,
            calibration_samples=0,
        )
        model.train(replace(given, log=log))
        losses[context] = metrics[-1]["loss"]
    assert losses[None] > 0.69 and losses["context"] < 0.2


def test_a_pair_without_a_context_is_named(policy: Policy) -> None:
    given = turning(policy)
    pairs = given.feedback["pairs"]
    with pytest.raises(UserError, match="the pairs have no column `contxt`; did you mean `context`"):
        Preferences.read(given, "contxt")
    gone = replace(given, feedback={"pairs": pairs.assign(context=pairs["context"].where(pairs.index != 3))})
    with pytest.raises(UserError, match="row 3 has no `context`"):
        Preferences.read(gone, "context")


EXPERIMENT = """
world: {use: pocket, documents: 64, epochs: 1}
sft: null
annotator: &people
  class: annotators.people.contextual.Contextual
  annotators:
  - {class: annotators.people.logit.LogitAnnotator, name: quote, weights: {quote: 1.0}}
  - {class: annotators.people.logit.LogitAnnotator, name: figure, weights: {figure: 1.0}}
judges: {judge: *people}
reward_model: {use: reward_model, epochs: 1, calibration_samples: 8}
models: {informed: {use: reward_model, epochs: 1, calibration_samples: 8, context: context}}
methods:
  plain: {use: best_of_n, n: 2}
  other: {use: best_of_n, n: 2, reward_model: informed}
sizes: {pairs: 24, prompts: 8, evaluation: 4, samples: 2}
accuracy: true
reporter: null
"""


def test_a_model_that_reads_a_context_is_compared_with_who_says_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("contexts.yaml").write_text(EXPERIMENT)
    farm.run("contexts.yaml", out="run")
    accuracy = pd.read_parquet(next(Path("run").rglob("accuracy.parquet")))
    compared = accuracy.groupby("model")["of"].unique().map(set).to_dict()
    assert compared == {"informed": {"judge"}, "reward_model": {"judge", "gold utility"}}
    assert np.isfinite(accuracy["margin"]).all()
