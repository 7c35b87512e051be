"""Ratings against rankings: how often they disagree, and what each teaches."""

import numpy as np
import pytest

from reference_methods.studies.parts import best
from reference_methods.studies.peering import Peering, fit_rankings, fit_ratings


@pytest.mark.parametrize(("angle", "share"), [(0, 0.31), (30, 0.365), (60, 0.485), (90, 0.62)])
def test_labels_disagree_as_often_as_the_angle_says(angle: float, share: float) -> None:
    labels = Peering(angle=angle, pairs=60_000, instructions=1, n=1).tables(1)["labels"]
    assert labels["disagrees"].mean() == pytest.approx(share, abs=0.01)  # two standard errors are .004


def test_where_both_value_the_same_without_noise_ties_alone_disagree() -> None:
    labels = Peering(angle=0, noise=0, pairs=60_000, instructions=1, n=1).tables(1)["labels"]
    assert labels["disagrees"].mean() == pytest.approx(0.27, abs=0.01)


def test_each_protocol_teaches_what_it_values() -> None:
    draws = np.random.default_rng(3)
    phi, other = draws.normal(size=(2, 5_000, 2))
    ranked = fit_rankings(phi - other, phi[:, 0] > other[:, 0])
    rated = fit_ratings(phi, Peering(angle=60).ratings(phi, draws))
    for v, angle in ((ranked, 0.0), (rated, 60.0)):
        assert np.rad2deg(np.arctan2(v[1], v[0])) == pytest.approx(angle, abs=2)


def test_wins_are_of_each_judge_and_a_seed_gives_one_result() -> None:
    tables = Peering(angle=90, pairs=500).tables(4)
    lead = tables["duels"].groupby("judge")["lead"].mean()
    assert lead["ranks"] > 0.4 and lead["rates"] < -0.4
    assert set(tables["wins"].groupby(["judge", "method"]).size()) == {400}
    again = Peering(angle=90, pairs=500).tables(4)
    assert all(again[name].equals(table) for name, table in tables.items())


def test_the_best_of_some_is_the_first_by_the_weights() -> None:
    candidates = np.array([[[0.0, 3.0], [1.0, 0.0]]])
    assert best(candidates, np.array([1.0, 0.0])).tolist() == [[1.0, 0.0]]
    assert best(candidates, np.array([0.0, 1.0])).tolist() == [[0.0, 3.0]]
