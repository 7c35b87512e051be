"""Reaction models, sums of models, and the studies of reactions and of shadow users."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from annotators.feedback.reactions import PersonReactor
from farm.base.errors import UserError
from farm.policies import load
from farm.worlds.matrix import MatrixWorld
from reference_methods.models.reaction_model import ReactionModel, inverse_propensities
from reference_methods.models.weighted_model import WeightedModel, WeightedScorer
from reference_methods.parts.anchored import Anchored
from reference_methods.parts.games.feedback import RewardPreference
from reference_methods.studies.shadow_users import ShadowUsers, in_order
from reference_methods.studies.user_reactions import UserReactions, tilted
from tests.reference_methods.tables import REFERENCE, learning, policy_of, scorer_of

EXACT: dict[str, Any] = {"epochs": 150, "batch_size": 150, "learning_rate": 0.1, "warm_up": 0.0}
LIKING = np.array([0.5, 0.2, 0.8])
SAYS_SO = {True: 0.8, False: 0.2}
"""how likely a reaction is"""


def reactions(each: int = 100) -> pd.DataFrame:
    """What is seen of ``each`` readers of each response, in the frequencies that are expected."""
    rows = []
    for k, liking in enumerate(LIKING):
        for liked, share in ((True, liking), (False, 1 - liking)):
            rows += [(f"response {k}", liked, SAYS_SO[liked])] * round(each * share * SAYS_SO[liked])
    table = pd.DataFrame(rows, columns=["output", "liked", "propensity"])
    return table.assign(instruction="prompt 0", liked=table["liked"].astype(object))


def chance_of_a_like(**settings: Any) -> np.ndarray:
    method = ReactionModel(**EXACT, calibration_samples=0, **settings)
    scorer = method.train(learning(policy_of(REFERENCE), feedback={"reactions": reactions()}))
    return torch.sigmoid(scorer.table.detach()).numpy()[0]  # type: ignore[attr-defined]


def test_inverse_propensities_give_the_likings_back_and_reactions_as_they_come_do_not() -> None:
    """[num] four in five of those who like it say so, and one in five of the others."""
    assert chance_of_a_like() == pytest.approx(LIKING, abs=5e-3)
    naive = 0.8 * LIKING / (0.8 * LIKING + 0.2 * (1 - LIKING))
    assert chance_of_a_like(clip=1.0) == pytest.approx(naive, abs=5e-3)
    clipped = LIKING / (LIKING + 0.5 * (1 - LIKING))  # .2 counts as .4
    assert chance_of_a_like(clip=0.4) == pytest.approx(clipped, abs=5e-3)


def test_weights_have_mean_one_and_wrong_propensities_are_refused() -> None:
    weights = inverse_propensities(reactions(), 0.1)
    assert weights.mean() == pytest.approx(1) and weights.max() / weights.min() == pytest.approx(4)
    assert inverse_propensities(reactions().drop(columns="propensity"), 0.1).tolist() == [1.0] * len(reactions())
    with pytest.raises(UserError, match=r"row 0 has propensity 0\.0"):
        inverse_propensities(reactions().assign(propensity=0.0), 0.1)
    with pytest.raises(UserError, match="nobody reacted"):
        ReactionModel().train(learning(policy_of(REFERENCE)))


def test_a_weighted_model_is_the_sum_and_is_kept(tmp_path: Path) -> None:
    models = {"helpful": scorer_of([1.0, 2.0, 4.0]), "loved": scorer_of([0.0, 3.0, -3.0])}
    method = WeightedModel(weights={"loved": 0.5, "helpful": 2.0})
    assert method.needs == {"helpful", "loved"} and WeightedModel().needs == {"reward_model"}
    start = policy_of(REFERENCE)
    found = method.train(learning(start, models=models))
    samples = start.encode(["prompt 0"] * 3, start.responses)
    assert found.scores(samples).tolist() == [2.0, 5.5, 6.5]
    found.calibrate(2.0, 0.5)
    found.save(tmp_path / "sum")
    again = load(tmp_path / "sum")
    assert isinstance(again, WeightedScorer)
    assert again.scores(samples).tolist() == [0.0, 7.0, 9.0] == found.copy().scores(samples).tolist()


def test_a_value_model_begins_with_a_part_that_has_parameters() -> None:
    start, fitted = policy_of(REFERENCE), scorer_of([1.0, 2.0, 4.0])
    computed = Anchored(RewardPreference(fitted), start, seed=1)
    critic = WeightedScorer([computed, fitted], [0.5, 0.5]).copy(zero_head=True)
    samples = start.encode(["prompt 0"] * 3, start.responses)
    assert not critic.values(samples).any() and next(iter(critic.parameters())).shape == (1, 3)


def test_a_reactor_likes_what_it_has_a_bias_for() -> None:
    world = MatrixWorld(utilities=[0.0, 1.0])
    table = pd.DataFrame({"instruction": [f"p{k}" for k in range(3000)], "output": "response 2"})
    share = {
        bias: PersonReactor(world.features, base=50.0, bias=bias and {"utility": bias})
        .react(table, seed=1)["liked"]
        .mean()
        for bias in (None, 1.5)
    }
    assert share[None] == pytest.approx(1 / (1 + np.exp(-1.0)), abs=0.03)
    assert share[1.5] == pytest.approx(1 / (1 + np.exp(-2.5)), abs=0.03)


def test_a_tilt_has_the_kl_that_was_asked_for() -> None:
    reward = np.random.default_rng(0).normal(size=2000)
    for kl in (0.5, 3.0):
        p = tilted(reward, kl)
        assert float((p * np.log(np.maximum(p * 2000, 1e-300))).sum()) == pytest.approx(kl, abs=1e-6)
        assert p.sum() == pytest.approx(1) and (np.diff(p[np.argsort(reward)]) >= 0).all()


@pytest.fixture(scope="module")
def loved() -> dict[str, dict[str, pd.DataFrame]]:
    """The tables of the study in small, where something is loved beyond its worth and where nothing is."""
    small: dict[str, Any] = {"logged": 3000, "texts": 4000, "pairs": 1000}
    studies = {"hackable": UserReactions(**small), "honest": UserReactions(bias={}, **small)}
    tables = {name: study.tables(1) for name, study in studies.items()}
    return {name: {k: table.set_index("method") for k, table in found.items()} for name, found in tables.items()}


def test_what_users_love_beyond_its_worth_is_hacked_and_else_is_not(
    loved: dict[str, dict[str, pd.DataFrame]],
) -> None:
    """[trend] love rises with the weight, utility falls at 1 below where it was at 0; without a bias it does not."""
    policies, honest = loved["hackable"]["policies"], loved["honest"]["policies"]
    assert policies.loc["w 0", "love"] < policies.loc["w 0.5", "love"] < policies.loc["w 1", "love"]
    assert policies.loc["w 1", "hacks"] > policies.loc["w 0", "hacks"]
    fall, none = (float(of.loc["w 0", "gold"] - of.loc["w 1", "gold"]) for of in (policies, honest))
    assert fall > 1 and none < 0.2 and honest.loc["w 0.5", "gold"] > honest.loc["w 0", "gold"]


def test_the_chance_of_a_like_is_calibrated_and_told_almost_as_well_as_can_be(
    loved: dict[str, dict[str, pd.DataFrame]],
) -> None:
    """[num] with inverse propensities tenths of the texts are misjudged by less than .01; AUROC within .03."""
    for found in loved.values():
        models = found["models"]
        assert models.loc["truth", ["error", "unreliable"]].tolist() == [0, 0]
        assert models.loc["ips", "unreliable"] < 0.01 and models.loc["ips", "error"] < models.loc["naive", "error"]
        assert models.loc["truth", "auroc"] - 0.03 < models.loc["ips", "auroc"] < models.loc["truth", "auroc"]


def test_a_policy_that_seeks_likes_is_promised_more_of_them_than_it_gets(
    loved: dict[str, dict[str, pd.DataFrame]],
) -> None:
    """[trend] the model is calibrated on the logged policy; on the next ones it errs upwards the more it was sought."""
    for found in loved.values():
        policies = found["policies"]
        too_much = (policies["promised"] - policies["love"])[["w 0", "w 0.5", "w 1"]].to_numpy()
        assert (np.diff(too_much) > 0).all() and too_much[-1] > 0.02
        assert policies["auroc"].between(0.55, found["models"].loc["ips", "auroc"] - 0.05).all()  # nor told as well


def least_right(ratio: float) -> float:
    """How often a shadow must be right for m = ``ratio`` n of its labels to help."""
    return float(0.5 + 0.5 / (1 + np.sqrt(1 + ratio)))


def test_how_often_a_shadow_must_be_right() -> None:
    """[num] .736, .707, .655, .620 at m / n = .25, 1, 4, 9; at it, signal over noise is that of n labels alone."""
    assert [round(least_right(ratio), 3) for ratio in (0.25, 1, 4, 9)] == [0.736, 0.707, 0.655, 0.62]
    for ratio in (0.25, 4.0):
        signal = 1 + ratio * (2 * least_right(ratio) - 1)
        assert signal / np.sqrt(1 + ratio) == pytest.approx(1)


def test_a_shadow_of_the_own_reactions_adds_nothing_and_one_that_knows_others_does() -> None:
    """[trend]"""
    found = pd.concat([ShadowUsers(users=30).tables(seed)["accuracy"] for seed in (1, 2)])
    right = found.groupby("method")["right"].mean()
    assert right["own"] == pytest.approx(right["observed"], abs=0.02)
    assert right["observed"] + 0.01 < right["population"] < right["real"]
    assert in_order(np.array([1.0, 0.0]), np.array([0.0, 2.0])) == pytest.approx(0.5)
    assert in_order(np.array([1.0, 0.0]), np.array([-1.0, 0.0])) == 0.0
