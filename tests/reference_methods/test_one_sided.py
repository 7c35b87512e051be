"""One-sided labels: the trap of the greedy learner, and what exploration costs."""

import numpy as np
import pytest

from reference_methods.studies.one_sided import OneSided


def regret(method: str, **settings: object) -> float:
    tables = [OneSided(**settings).tables(seed)["regret"] for seed in range(3)]  # type: ignore[arg-type]
    return float(np.mean([table[table["method"] == method]["regret"].sum() for table in tables]))


def test_a_greedy_learner_with_a_wrong_prior_never_learns_and_one_with_a_right_prior_has_no_regret() -> None:
    """[trend] 99 of 1,000 cases, 398 of 4,000: half of them are of the kind that it rejects, at .2 each."""
    assert regret("greedy") == pytest.approx(100, abs=6)
    assert regret("greedy", prior=(0.7, 0.6), weight=100.0) == 0
    assert regret("greedy", cases=4000) == pytest.approx(400, abs=12)  # it grows with the cases
    few, many = regret("exp2"), regret("exp2", cases=4000)
    assert 20 < few < 50 and many < 2 * few  # that of exploring alone would be four times as much


def test_exploration_alone_bounds_the_chance_to_accept_from_below() -> None:
    table = OneSided(truth=(0.2, 0.2), prior=(0.9, 0.9), exploration=0.1).tables(1)["regret"]
    late = table[(table["method"] == "exp2") & (table["step"] >= 900)]["regret"]
    assert late.mean() == pytest.approx(0.1 * 0.6, abs=0.01)  # what is explored costs .6 each
