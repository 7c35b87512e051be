"""Groups of users with other tastes: who is asked, what a group values, and its judge."""

from __future__ import annotations

import pandas as pd
import pytest

from annotators.noise.flip import Flip
from annotators.people.groups import Groups
from farm.asking.ask import ask
from farm.feedback.pairs import KIND
from farm.roles import config
from farm.roles.protocols import Annotator, Context
from farm.worlds.pocket.gold import PocketFeatures
from farm.worlds.text_features import TextFeatures
from tests.annotators.conftest import features_of, pairs_of

FEATURES = features_of({"u": 0.0}, u=[0.0, 0.0], praise=[0.0, 1.0])
TASTES = {"likers": {"praise": 4.0}, "haters": {"praise": -4.0}}


def groups(**settings: object) -> Groups:
    return Groups(FEATURES, TASTES, users=5, **settings)  # type: ignore[arg-type]


def test_pairs_go_to_groups_by_their_shares_and_each_prefers_by_its_weights() -> None:
    table = groups(shares={"likers": 0.9, "haters": 0.1}).annotate(pairs_of([1] * 4000, 0), seed=1)
    assert set(table["user_group"]) == set(TASTES) and table["annotator"].nunique() == 10
    assert (table["user_group"] == "likers").mean() == pytest.approx(0.9, abs=0.02)
    assert table.groupby("annotator")["user_group"].nunique().max() == 1
    likes = (table["preference"] == 1).groupby(table["user_group"]).mean()
    assert likes["likers"] > 0.97 and likes["haters"] < 0.03  # sigma(4 / .5) and its mirror image


def test_the_judge_of_a_group_is_that_group_alone() -> None:
    judge = groups(only="haters", shares={"likers": 1.0, "haters": 0.0})
    table = judge.annotate(pairs_of([1] * 200, 0), seed=1)
    assert set(table["user_group"]) == {"haters"} and (table["preference"] == 2).mean() > 0.95
    assert set(judge.whose(pairs_of([1] * 200, 0), seed=1)) == set(table["annotator"])


def test_a_wrapper_keeps_whose_opinion_a_row_is() -> None:
    pairs = pairs_of([1] * 300, 0)
    plain, flipped = (ask(KIND, giver, pairs, seed=2) for giver in (groups(), Flip(groups(), rate=0.25)))
    assert (plain["annotator"] == flipped["annotator"]).all() and (plain["user"] == plain["annotator"]).all()
    asked = flipped["user_group"].notna()
    assert (plain["user_group"] == flipped["user_group"])[asked].all() and asked.mean() > 0.3


def test_the_order_of_rows_changes_nothing() -> None:
    pairs = pairs_of([1] * 50, 0)
    table, again = (groups().annotate(p, seed=1).sort_index() for p in (pairs, pairs.sample(frac=1, random_state=0)))
    pd.testing.assert_frame_equal(table, again)


def test_a_group_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no group `liker`; did you mean `likers`"):
        groups(only="liker")
    with pytest.raises(ValueError, match="`shares` are all 0"):
        groups(shares={"likers": 0.0})


@pytest.mark.parametrize(("name", "features"), [("groups", TextFeatures()), ("pocket_groups", PocketFeatures())])
def test_the_named_groups_weigh_terms_that_there_are(name: str, features: TextFeatures) -> None:
    found = config.build(Annotator, name, Context(features=features))
    assert isinstance(found, Groups) and set(found.groups) == {"majority", "minority"}
    assert {term for taste in found.groups.values() for term in taste} <= set(features.gold_weights)
