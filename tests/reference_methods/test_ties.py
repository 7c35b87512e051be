"""Rao and Kupper's ties: the law, the three treatments, and the reward model that has it."""

import numpy as np
import pandas as pd
import pytest
import torch

from reference_methods.models.reward_model import RewardModel
from reference_methods.parts.losses import bradley_terry, rao_kupper
from reference_methods.studies.ties import Ties, fits, probabilities
from tests.reference_methods.tables import learning, policy_of


@pytest.mark.parametrize("theta", [1.0, 1.5, 5.0])
@pytest.mark.parametrize("distance", [-2.0, 0.0, 1.0])
def test_the_three_outcomes_are_all_there_is(distance: float, theta: float) -> None:
    shares = probabilities(distance, theta)
    assert shares.sum() == pytest.approx(1) and shares.min() >= 0
    assert shares[[2, 1, 0]] == pytest.approx(probabilities(-distance, theta))


def test_the_known_answers() -> None:
    """[num] theta 5, d = 1: ties .579; the fits 1, .583, 1.637; at theta 1.5 .963 and 1.185."""
    assert probabilities(1.0, 5.0)[1] == pytest.approx(0.579, abs=1e-3)
    assert probabilities(0.0, 5.0)[1] == pytest.approx(4 / 6)
    for theta, halves, dropped in ((5.0, 0.583, 1.637), (1.5, 0.963, 1.185)):
        found = fits(probabilities(1.0, theta), theta)
        expected = {"likelihood": 1.0, "halves": halves, "dropped": dropped}
        assert found == {name: pytest.approx(value, abs=1e-3) for name, value in expected.items()}


def test_without_ties_it_is_the_bradley_terry_loss_and_a_soft_label_a_mixture() -> None:
    margin = torch.tensor([0.7, -0.3, 2.0, 0.0])
    label = torch.tensor([1.0, 0.0, 0.5, 0.8])
    assert torch.equal(rao_kupper(margin, label, 1.0), bradley_terry(margin, label))
    one, tie = (rao_kupper(margin, torch.full((4,), p), 5.0) for p in (1.0, 0.5))
    assert torch.allclose(rao_kupper(margin, torch.full((4,), 0.8), 5.0), 0.6 * one + 0.4 * tie)
    with pytest.raises(ValueError, match="theta is at least 1"):
        rao_kupper(margin, label, 0.5)


def pairs(theta: float, distance: float = 1.0, n: int = 1000) -> pd.DataFrame:
    """The outcomes of n comparisons of response 0 with response 1, as often as is expected."""
    counts = np.round(n * probabilities(distance, theta)).astype(int)
    preference = np.repeat([1.0, 1.5, 2.0], counts)
    return pd.DataFrame(
        {"instruction": "prompt 0", "output_1": "response 0", "output_2": "response 1", "preference": preference}
    )


def test_a_reward_model_recovers_the_distance_where_halves_do_not() -> None:
    settings = {
        "epochs": 120,
        "batch_size": 2000,
        "learning_rate": 0.1,
        "held_out_share": 0.0,
        "calibration_samples": 0,
    }
    found = []
    for ties in (5.0, 1.0):
        policy = policy_of([0.5, 0.5])
        scorer = RewardModel(ties=ties, **settings).train(learning(policy, feedback={"pairs": pairs(5.0)}))  # type: ignore[arg-type]
        first, second = scorer.scores(policy.encode(["prompt 0"] * 2, ["response 0", "response 1"])).tolist()
        found.append(first - second)
    assert found == pytest.approx([1.0, 0.583], abs=5e-3)


def test_ties_stand_beside_no_other_treatment_of_labels() -> None:
    with pytest.raises(ValueError, match=r"`ties` = 0\.9 is wrong"):
        RewardModel(ties=0.9)
    with pytest.raises(ValueError, match="label_smoothing and margin must be 0"):
        RewardModel(ties=2.0, margin=1.0)


def test_a_study_draws_by_its_seed() -> None:
    one, again, other = (Ties(outcomes=100, comparisons=3).tables(seed)["fits"] for seed in (1, 1, 2))
    assert one.equals(again) and not one.equals(other) and len(one) == 9
