"""Preference models: antisymmetric by construction, cycles fitted where a reward model cannot, the cost of K."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from farm.policies import load
from farm.policies.tabular import TabularPolicy, TabularScorer
from farm.roles import config
from farm.roles.protocols import Annotator, Context, Learning, PreferenceModel, Samples
from reference_methods.models.general_preference_model import GeneralPreferenceModel, Planes
from reference_methods.models.generative_preference_model import GenerativePreferenceModel, Judge
from reference_methods.models.preference_model import PairwisePreferenceModel
from reference_methods.models.reward_model import RewardModel
from reference_methods.parts.games.feedback import ModelFeedback, RewardPreference
from reference_methods.parts.games.models import PreferenceFit, TabularEmbedder
from tests.annotators.conftest import features_of, pairs_of
from tests.policies.conftest import make_policy

FIT: dict[str, Any] = {"epochs": 60, "batch_size": 64, "learning_rate": 0.05, "schedule": "cosine", "held_out_share": 0}


def table_policy(size: int) -> TabularPolicy:
    return TabularPolicy(["x"], [f"y{i}" for i in range(size)], torch.zeros(1, size, dtype=torch.float64))


def all_pairs(preferences: np.ndarray, copies: int = 1) -> pd.DataFrame:
    """Every ordered pair with its probability as a soft label."""
    size = len(preferences)
    i, j = (a.reshape(-1) for a in np.meshgrid(np.arange(size), np.arange(size), indexing="ij"))
    keep = np.tile(i != j, copies)
    i, j = np.tile(i, copies)[keep], np.tile(j, copies)[keep]
    return pd.DataFrame(
        {
            "instruction": "x",
            "output_1": [f"y{k}" for k in i],
            "output_2": [f"y{k}" for k in j],
            "preference": 2 - preferences[i, j],
            "status": "ok",
        }
    )


def learning(preferences: np.ndarray, copies: int = 8) -> Learning:
    table = all_pairs(preferences, copies)
    return Learning(
        seed=1, policy=table_policy(len(preferences)), prompts=table[["instruction"]], feedback={"pairs": table}
    )


def everyone(size: int) -> Samples:
    policy = table_policy(size)
    return policy.encode(["x"] * size, policy.responses)


def matrix_of(model: PreferenceModel, size: int) -> np.ndarray:
    samples = everyone(size)
    rows, columns = np.repeat(np.arange(size), size), np.tile(np.arange(size), size)
    with torch.no_grad():
        return model.logits(samples.select(rows), samples.select(columns)).view(size, size).numpy()


def circle(size: int) -> np.ndarray:
    """Each of n responses beats those up to half way round."""
    ahead = (np.arange(size)[None] - np.arange(size)[:, None]) % size
    return np.where(ahead == 0, 0.5, np.where(ahead <= size // 2, 1.0, 0.0))


@pytest.mark.parametrize("size", [3, 5, 7])
def test_two_dimensions_fit_a_circle_perfectly_and_bradley_terry_not_at_all(size: int) -> None:
    known = circle(size)
    off = ~np.eye(size, dtype=bool)
    gpm = GeneralPreferenceModel(planes=1, **FIT).train(learning(known))
    assert ((matrix_of(gpm, size) > 0) == (known > 0.5))[off].all()
    whole = {**FIT, "batch_size": 10_000, "epochs": 300}  # all pairs in every step, or chance would rank them
    bt = RewardModel(calibration_samples=0, **whole).train(learning(known))
    logits = matrix_of(RewardPreference(bt), size)
    np.testing.assert_allclose(logits, 0.0, atol=1e-3)  # all scores equal: the loss stays ln 2
    loss = -(known * np.log(1 / (1 + np.exp(-logits))) + (1 - known) * np.log(1 / (1 + np.exp(logits))))[off].mean()
    assert loss == pytest.approx(math.log(2), abs=1e-5)


def test_a_strict_ranking_of_three_in_a_circle_gets_two_of_three() -> None:
    known = circle(3)
    ranks = np.array([2.0, 1.0, 0.0])
    right = (ranks[:, None] > ranks[None]) == (known > 0.5)
    assert right[~np.eye(3, dtype=bool)].mean() == pytest.approx(2 / 3)


def test_the_contrary_person_goes_in_a_circle_that_one_plane_has_and_a_reward_has_not() -> None:
    """[num] plain, polite and two examples: log-odds 3, 2 and 2 round the circle; rewards (-.096, .096, 0), loss .6909
    where the entropy is .3072, and one pair of three right."""
    seen = {"polite": [0.0, 1.0, 0.0], "polite_squared": [0.0, 1.0, 0.0], "example": [0.0, 0.0, 2.0]}
    weights = config.described(Annotator, "pocket_contrary")["weights"]
    features = features_of(**{name: seen.get(name, [0.0] * 3) for name in weights})
    person = config.build(Annotator, "pocket_contrary", Context(features=features))
    p_first = person.annotate(pairs_of([1, 0, 2], [0, 2, 1]), seed=1)["p_first"].to_numpy()
    np.testing.assert_allclose(np.log(p_first / (1 - p_first)), [3, 2, 2])
    known = np.full((3, 3), 0.5)
    known[[1, 0, 2], [0, 2, 1]], known[[0, 2, 1], [1, 0, 2]] = p_first, 1 - p_first
    off, log_odds = ~np.eye(3, dtype=bool), np.log(known / (1 - known))
    whole = {**FIT, "batch_size": 10_000, "epochs": 300}
    rewards = matrix_of(RewardPreference(RewardModel(calibration_samples=0, **whole).train(learning(known, 1))), 3)
    np.testing.assert_allclose(rewards.mean(1), [-0.096, 0.096, 0.0], atol=1e-3)
    losses = known * np.logaddexp(0, -rewards) + (1 - known) * np.logaddexp(0, rewards)
    entropy = known * np.logaddexp(0, -log_odds) + (1 - known) * np.logaddexp(0, log_odds)
    assert (losses[off].mean(), entropy[off].mean()) == pytest.approx((0.6909, 0.3072), abs=1e-4)
    assert ((rewards > 0) == (log_odds > 0))[off].sum() == 2  # one pair, in both orders
    plane = matrix_of(GeneralPreferenceModel(planes=1, **whole).train(learning(known, 1)), 3)
    np.testing.assert_allclose(plane, log_odds, atol=0.02)


def random_log_odds(size: int, rank: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    planes = [draw.normal(size=(2, size)) for _ in range(rank // 2)]
    return sum((np.outer(a, b) - np.outer(b, a) for a, b in planes), np.zeros((size, size)))


def excess_loss(model: PreferenceFit, log_odds: np.ndarray) -> float:
    """Cross-entropy to the true preferences above their entropy, in nats a pair."""
    size = len(log_odds)
    known = 1 / (1 + np.exp(-log_odds))
    found = matrix_of(model.train(learning(known)), size)
    losses = np.logaddexp(0, -found) * known + np.logaddexp(0, found) * (1 - known)
    floor = np.logaddexp(0, -log_odds) * known + np.logaddexp(0, log_odds) * (1 - known)
    return float((losses - floor)[~np.eye(size, dtype=bool)].mean())


def test_planes_must_match_the_rank() -> None:
    """Any antisymmetric table is representable with half as many planes as its rank, and not with fewer."""
    log_odds = random_log_odds(6, 6, seed=2)
    fit = {**FIT, "epochs": 150}
    enough = excess_loss(GeneralPreferenceModel(planes=3, **fit), log_odds)
    short = excess_loss(GeneralPreferenceModel(planes=1, **fit), log_odds)
    assert enough < 2e-3
    assert short > 10 * max(enough, 1e-3)
    assert excess_loss(PairwisePreferenceModel(**fit), log_odds) < 2e-3


def test_normalised_vectors_bound_the_score() -> None:
    model = GeneralPreferenceModel(planes=2, normalise=True, temperature=0.5).begin(table_policy(9), seed=3)
    assert np.abs(matrix_of(model, 9)).max() <= 1 / 0.5 + 1e-9


def test_a_reward_model_is_the_special_case_of_one_plane() -> None:
    policy = table_policy(4)
    rewards = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64)
    embedding = TabularEmbedder(policy, torch.stack([rewards, torch.ones(4, dtype=torch.float64)], -1)[None])
    general = matrix_of(Planes(embedding, normalise=False, temperature=1.0), 4)
    scorer = TabularScorer(policy.prompts, policy.responses, rewards[None])
    np.testing.assert_allclose(general, matrix_of(RewardPreference(scorer), 4), atol=1e-12)


def test_k_responses_take_k_embeddings() -> None:
    model = GeneralPreferenceModel(planes=2).begin(table_policy(12), seed=0)
    asked: list[int] = []

    class Counting:
        def __call__(self, samples: Samples) -> torch.Tensor:
            asked.append(len(samples))
            return model.embed(samples)

        parameters, save = model.parameters, model.save

    counted = Planes(Counting(), model.normalise, model.temperature)
    whole = counted.matrix(everyone(12)).detach().numpy()
    assert asked == [12]
    np.testing.assert_allclose(whole, matrix_of(model, 12), atol=1e-12)


@pytest.mark.parametrize("method", [GeneralPreferenceModel(planes=2), PairwisePreferenceModel()])
def test_antisymmetric_whatever_the_weights_on_a_language_model(method: PreferenceFit) -> None:
    policy = make_policy()
    samples = policy.sample(["w1", "w2 w3", "w1", "w9"] * 2, seed=1, purpose="t")
    first, second = samples.select(range(4)), samples.select(range(4, 8))
    model = method.begin(policy, seed=5)
    there, back = model.logits(first, second), model.logits(second, first)
    torch.testing.assert_close(there, -back)
    assert float(there.detach().abs().max()) > 1e-3
    torch.testing.assert_close(model.logits(first, first), torch.zeros(4))


@pytest.mark.parametrize(
    "method",
    [
        GeneralPreferenceModel(planes=2, epochs=40, learning_rate=1e-2, batch_size=16, held_out_share=0),
        PairwisePreferenceModel(epochs=40, learning_rate=1e-2, batch_size=16, held_out_share=0),
        GenerativePreferenceModel(
            epochs=40,
            learning_rate=1e-2,
            batch_size=16,
            held_out_share=0,
            question="w1 {instruction} w2 {first} w3 {second} w4",
            verdicts=("w10", "w11"),
        ),
    ],
)
def test_models_learn_from_pairs_of_a_language_model(method: PreferenceFit) -> None:
    """The longer response is preferred; what was seen can be told again."""
    policy = make_policy()
    samples = policy.sample([f"w{i % 30}" for i in range(120)], seed=2, purpose="t")
    pairs = np.flatnonzero(samples.lengths()[:60] != samples.lengths()[60:])
    samples = policy.encode(samples.prompts, samples.outputs)
    first, second = samples.select(pairs), samples.select(pairs + 60)
    longer = first.lengths() > second.lengths()
    table = pd.DataFrame(
        {
            "instruction": first.prompts,
            "output_1": first.outputs,
            "output_2": second.outputs,
            "preference": np.where(longer, 1.0, 2.0),
        }
    )
    model = method.train(Learning(seed=1, policy=policy, prompts=table[["instruction"]], feedback={"pairs": table}))
    if isinstance(model, Judge):  # it was asked in one order of each pair
        model = replace(model, seed=1, fitting=True)
    with torch.no_grad():
        assert ((model.logits(first, second).numpy() > 0) == longer).mean() > 0.85


WORDS = GenerativePreferenceModel(question="w1 {instruction} w2 {first} w3 {second} w4", verdicts=("w10", "w11"))


@pytest.mark.parametrize("method", [GeneralPreferenceModel(), PairwisePreferenceModel(), WORDS, "reward"])
@pytest.mark.parametrize("kind", ["language model", "table"])
def test_a_saved_model_prefers_the_same(method: PreferenceFit | str, kind: str, tmp_path: Path) -> None:
    policy = make_policy() if kind == "language model" else table_policy(8)
    if method is WORDS and kind == "table":
        pytest.skip("a table cannot be asked in words")
    prompts = ["w1", "w2 w3", "w1", "w9"] if kind == "language model" else ["x"] * 4
    first, second = (policy.sample(prompts, seed=seed, purpose="t") for seed in (1, 2))
    begun = RewardPreference(policy.scorer(5), 0.5) if isinstance(method, str) else method.begin(policy, seed=5)
    model: PreferenceModel = replace(begun, fitting=False) if isinstance(begun, Judge) else begun
    model.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, PreferenceModel)
    torch.testing.assert_close(again.logits(first, second), model.logits(first, second))


def test_the_judge_is_averaged_over_both_orders() -> None:
    policy = make_policy()
    samples = policy.sample(["w1", "w2", "w3", "w4"], seed=1, purpose="t")
    other = policy.sample(["w1", "w2", "w3", "w4"], seed=2, purpose="t")
    judge = Judge(policy, "w1 {instruction} w2 {first} w3 {second} w4", ("w10", "w11"))
    with torch.no_grad():
        there, back = torch.sigmoid(judge.logits(samples, other)), torch.sigmoid(judge.logits(other, samples))
        torch.testing.assert_close(there + back, torch.ones(4))
        assert float(judge.asymmetry(samples, other).max()) > 1e-3
    same = judge.logits(samples, samples)
    torch.testing.assert_close(same, torch.zeros(4), atol=1e-5, rtol=0)


def test_braces_in_a_response_are_only_text() -> None:
    from reference_methods.models.generative_preference_model import _fill

    assert _fill("{instruction}|{first}|{second}", "a {first}", "{second}", "c") == "a {first}|{second}|c"


def test_feedback_from_a_model_counts_queries() -> None:
    samples = everyone(4)
    scorer = TabularScorer(["x"], [f"y{i}" for i in range(4)], torch.arange(4.0)[None])
    feedback = ModelFeedback(RewardPreference(scorer))
    found = feedback(samples.select([3, 0]), samples.select([0, 3]))
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))], rtol=1e-6)
    scores = ModelFeedback(RewardPreference(scorer), score=True)
    np.testing.assert_allclose(scores(samples.select([3]), samples.select([1])), [2.0])
    assert (feedback.queries, scores.queries) == (2, 1)
