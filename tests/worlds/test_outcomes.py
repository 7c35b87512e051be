"""The shop of hidden outcomes: what is expected of answers, what comes of them, and what is learned from either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from annotators.people.hindsight import Hindsight
from farm.base.errors import UserError
from farm.experiments import experiment
from farm.experiments.running import StudyRunner
from farm.worlds.outcomes import HONEST, OutcomesWorld

CHEAPEST = "claim 1"


def of(world: OutcomesWorld, answer: str, split: str = "test") -> pd.DataFrame:
    """The features of one answer to every customer."""
    asked = world.instructions(split)["instruction"].tolist()
    return world.features(asked, [answer] * len(asked))


@pytest.mark.parametrize("prices", [(1.0,), (1.0, 1.5, 2.0)])
@pytest.mark.parametrize("q", [0.2, 0.4])
def test_a_claim_is_expected_to_be_worth_1_and_is_worth_2q_minus_1_and_honesty_nothing(
    prices: tuple[float, ...], q: float
) -> None:
    """[num] -.6 and 0 at q = .2; dealt in exact shares, so in each split and not in the mean of draws."""
    world = OutcomesWorld(q=q, prices=prices)
    for split in ("train", "test"):
        claimed, honest = of(world, CHEAPEST, split), of(world, HONEST, split)
        assert claimed["expected"].to_numpy() == pytest.approx(1.0) and not honest["expected"].any()
        assert claimed["outcome"].mean() == pytest.approx(2 * q - 1) and not honest["outcome"].any()
        assert claimed["seen"].mean() == pytest.approx(2 * q - 1)


def test_what_is_expected_of_dearer_options_counts_cheaper_ones_that_may_have_it() -> None:
    """By hand at q = .2: the cheapest has it in .2 of the cases, else it is the cheapest that does."""
    world = OutcomesWorld()
    assert of(world, "claim 2")["expected"][0] == pytest.approx(0.2 / 1.5 + 0.8)
    assert of(world, "claim 3")["expected"][0] == pytest.approx(0.2 / 2 + 0.8 * 0.2 * 1.5 / 2 + 0.8**2)
    assert of(world, "claim 2")["outcome"].mean() == pytest.approx(0.2 * (0.2 / 1.5 + 0.8) - 0.8)


def test_simulated_outcomes_have_the_mean_of_real_ones_and_gullible_ones_that_of_the_claim() -> None:
    world = OutcomesWorld(customers=20_000)
    for answer in (CHEAPEST, "claim 3", HONEST):
        found = of(world, answer)
        for simulated, exact in (("simulated", "outcome"), ("gullible", "expected")):
            error = found[simulated].std() / len(found) ** 0.5 + 1e-12
            assert abs(found[simulated].mean() - found[exact].mean()) < 4.5 * error, (answer, simulated)
    both = of(world, CHEAPEST)
    assert abs(np.corrcoef(both["simulated"], both["outcome"])[0, 1]) < 0.03  # it does not know what the options have


def test_hindsight_that_sees_what_was_bought_knows_whether_it_was_right_and_not_what_else_there_was() -> None:
    found = of(OutcomesWorld(), "claim 2")
    lacks = found["outcome"] == -1
    assert (found["seen"][lacks] == -1).all()
    assert found["seen"][~lacks].unique() == pytest.approx([0.2 / 1.5 + 0.8])
    assert set(np.round(found["outcome"][~lacks], 6)) == {1.0, round(1 / 1.5, 6)}


def test_where_all_have_it_or_claims_are_ignored_nothing_is_to_be_learned_from_outcomes() -> None:
    certain, ignored = OutcomesWorld(q=1.0), OutcomesWorld(trust=0.0)
    for answer in (HONEST, CHEAPEST, "claim 2"):
        found = of(certain, answer)
        assert (found["outcome"] == found["expected"]).all()
        assert not of(ignored, answer)[["outcome", "expected", "simulated", "gullible"]].any(axis=None)
    assert of(certain, HONEST)["outcome"].unique() == [1.0]


def test_foresight_prefers_the_claim_and_hindsight_honesty() -> None:
    world = OutcomesWorld()
    asked = world.instructions("train")["instruction"]
    pairs = pd.DataFrame({"instruction": asked, "output_1": CHEAPEST, "output_2": HONEST})
    before = Hindsight(world.features, {"expected": 1.0}, hindsight=0.0, temperature=0.01)
    after = Hindsight(world.features, {"expected": 1.0}, {"outcome": 1.0}, temperature=0.01)
    assert (before.annotate(pairs, seed=0)["preference"] == 1).all()
    assert (after.annotate(pairs, seed=0)["preference"] == 1).mean() == pytest.approx(0.2)


def test_prices_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="the lowest first"):
        OutcomesWorld(prices=(2.0, 1.0))


@pytest.mark.parametrize(
    ("asked", "answer", "message"),
    [
        ("How are you?", HONEST, "'How are you?' is no customer of this shop; known: shop: test customer 1, "),
        ("shop: test customer 1", "claim 4", "'claim 4' is no answer of this shop; did you mean `claim 3`?"),
        ("shop: test customer 1", "", "'' is no answer of this shop; known: claim 1, claim 2, claim 3, honest"),
    ],
)
def test_texts_of_elsewhere_are_refused_in_a_sentence(asked: str, answer: str, message: str) -> None:
    with pytest.raises(UserError) as told:
        OutcomesWorld(customers=5).features([asked], [answer])
    assert message in str(told.value)


@pytest.mark.parametrize(("annotator", "utility"), [("foresight", -0.6), ("after_the_outcome", 0.0)])
def test_policies_reach_the_two_values(
    annotator: str, utility: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[num] through `farm run`: PPO and DPO from foresight claim, from hindsight they are honest."""
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    said = {"world": "outcomes", "annotator": annotator, "judges": {"judge": "foresight"}, "sizes": {"samples": 2}}
    methods = {"ppo": {"steps": 40}, "dpo": None}
    study = experiment.from_mapping({"name": "shop", "reporter": None, "methods": methods, **said}, "shop.yaml")
    assert not StudyRunner(study, tmp_path / "run").go().failures
    outputs = pd.read_parquet(tmp_path / "run" / "tables" / "outputs.parquet")
    found = outputs.groupby("method")["gold"].mean()
    # At most every tenth answer is another one: what DPO's beta and PPO's KL leave.
    assert found["ppo"] == pytest.approx(utility, abs=0.07) and found["dpo"] == pytest.approx(utility, abs=0.07)
    assert found["sft"] == pytest.approx(-0.46, abs=0.1)
