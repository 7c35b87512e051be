"""One-sided labels: the trap of the greedy learner, what exploration costs, and panels in closed form."""

import numpy as np
import pytest
from scipy.stats import binom

from reference_methods.studies.one_sided import OneSided


def regret(method: str, **settings: object) -> float:
    tables = [OneSided(**settings).tables(seed)["regret"] for seed in range(3)]  # type: ignore[arg-type]
    return float(np.mean([table[table["method"] == method]["regret"].sum() for table in tables]))


def test_a_greedy_learner_with_a_wrong_prior_never_learns_and_one_with_a_right_prior_has_no_regret() -> None:
    """[trend] 99 of 1,000 cases: half of them are of the kind that it rejects, at .2 each."""
    assert regret("greedy") == pytest.approx(100, abs=6)
    assert regret("greedy", prior=(0.7, 0.6), weight=100.0) == 0
    assert 20 < regret("exp2") < 50


def test_exploration_alone_bounds_the_chance_to_accept_from_below() -> None:
    table = OneSided(truth=(0.2, 0.2), prior=(0.9, 0.9), exploration=0.1).tables(1)["regret"]
    late = table[(table["method"] == "exp2") & (table["step"] >= 900)]["regret"]
    assert late.mean() == pytest.approx(0.1 * 0.6, abs=0.01)  # what is explored costs .6 each


@pytest.mark.parametrize(
    ("needed", "sensitivity", "false_alarm"), [(1, 0.973, 0.271), (2, 0.784, 0.028), (3, 0.343, 0.001)]
)
def test_panels_of_three(needed: int, sensitivity: float, false_alarm: float) -> None:
    """[num] any, majority, all of three auditors who find .7 and are wrong in .1: stated, for no panel is run."""
    assert binom.sf(needed - 1, 3, [0.7, 0.1]) == pytest.approx([sensitivity, false_alarm], abs=5e-4)
