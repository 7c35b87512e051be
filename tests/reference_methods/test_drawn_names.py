"""Studies that draw what they judge anew with every seed: names of one seed are not those of another."""

from __future__ import annotations

from typing import Any

import pytest

from farm.base.errors import UserError
from farm.roles.work import Texts
from reference_methods.pairs.dpo import DPO
from reference_methods.pairs.orpo import ORPO
from reference_methods.pairs.simpo import SimPO
from reference_methods.studies.aspect_ratings import AspectRatings
from reference_methods.studies.constitutions import Constitutions
from reference_methods.studies.contexts import Contexts
from reference_methods.studies.peering import Peering
from reference_methods.studies.pocket_texts import PocketTexts
from reference_methods.studies.shadow_users import ShadowUsers
from reference_methods.studies.ties import Ties


@pytest.mark.parametrize(
    "study",
    [AspectRatings(instructions=8, test=4, n=2), Constitutions(pairs=20, held_out=4), Contexts(pairs=60, held_out=20),
     Peering(pairs=60, instructions=4, n=2), ShadowUsers(users=3), Ties(outcomes=20, comparisons=2)],
    ids=lambda study: type(study).__name__,
)  # fmt: skip
def test_no_seed_has_the_names_of_another(study: Any) -> None:
    """The intervals took what was drawn anew as the same instructions, crossed with the seeds."""
    one, other = study.tables(1), study.tables(2)
    named = [name for name, table in one.items() if "instruction" in table]
    assert named
    for name in named:
        assert not set(one[name]["instruction"]) & set(other[name]["instruction"])
        again = one[name].groupby("method")["instruction"]
        assert again.agg(set).map(len).nunique() == 1  # of one seed the methods share them: pairs stay pairs


def test_a_term_that_the_utility_has_not_is_one_sentence() -> None:
    """It was a KeyError."""
    with pytest.raises(UserError, match="`jokes` is no term of the pocket world's utility; did you mean `joke`"):
        PocketTexts.written(2, 0, "a test").utility({"jokes": 1.0})


def test_without_a_reference_none_is_read() -> None:
    assert DPO(epochs=2).work(0, 10) == Texts(trained=40, read=20)
    assert ORPO(epochs=2).work(0, 10) == SimPO(epochs=2).work(0, 10) == Texts(trained=40, read=0)
