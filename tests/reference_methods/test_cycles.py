"""Circles and rankings, and who can tell them."""

import numpy as np
import pandas as pd
import pytest

from farm.roles import config
from farm.roles.protocols import Annotator, Context
from farm.worlds.pocket.gold import PocketFeatures
from reference_methods.studies.contrary import Contrary
from reference_methods.studies.cycles import Cycles, circle, ranking


def test_a_circle_prefers_each_to_the_next_half_and_a_ranking_to_all_that_follow() -> None:
    for n in (3, 5, 7):
        table = circle(n, 2.0)
        assert np.array_equal(table, -table.T)
        assert ((table > 0).sum(1) == (n - 1) // 2).all()
        assert np.linalg.matrix_rank(ranking(n, 2.0)) == 2
    assert (ranking(4, 3.0)[0] == [0, 1, 2, 3]).all()


def test_one_plane_has_every_pair_of_a_circle_and_a_reward_model_two_of_three_at_most() -> None:
    table = Cycles(responses=3, instructions=8, labels=60, log_odds=3.0).tables(1)["accuracy"]
    by_request = table.groupby(["method", "instruction"])["right"].sum().unstack("method")
    assert (by_request["one_plane"] == 3).all() and (by_request["bradley_terry"] <= 2).all()


def test_of_a_clear_ranking_all_are_right() -> None:
    table = Cycles(circle=False, responses=3, instructions=4, labels=100, log_odds=6.0).tables(2)["accuracy"]
    assert table.groupby("method")["right"].mean().tolist() == [1.0, 1.0]  # of three responses one plane is all


def test_an_even_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="odd number from 3 on"):
        Cycles(responses=4)


def test_of_a_person_in_a_circle_four_planes_tell_conflicts_and_without_it_bradley_terry_is_as_good() -> None:
    """[trend] all pairs .87, .92, .95 and conflicts .56, .62, .93; without the circle .969, .974 and .955."""
    context, right = Context(features=PocketFeatures()), dict[float, pd.DataFrame]()
    for cycle in (3.5, 0.0):
        person = config.build(Annotator, {"use": "pocket_contrary", "cycle": cycle}, context)
        table = Contrary(person, pairs=1200, held_out=800).tables(1)["accuracy"]
        of_conflicts = table[table["conflict"]].groupby("method")["right"].mean()
        right[cycle] = pd.DataFrame({"all": table.groupby("method")["right"].mean(), "conflicts": of_conflicts})
    circle, straight = right[3.5], right[0.0]
    assert circle.loc["one_plane", "all"] > circle.loc["bradley_terry", "all"] + 0.02
    assert circle.loc["four_planes", "conflicts"] > circle.loc[["bradley_terry", "one_plane"], "conflicts"].max() + 0.2
    assert straight.loc["bradley_terry", "all"] > straight.loc["four_planes", "all"]
    assert straight.loc["one_plane", "all"] == pytest.approx(straight.loc["bradley_terry", "all"], abs=0.02)
