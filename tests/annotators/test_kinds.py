"""The kinds of feedback: what each puts before its giver, in which order, and under which ids."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd
import pytest

from farm.base.errors import UserError
from farm.feedback.kind import kind, kinds
from farm.roles import config

RESPONSES = pd.DataFrame(
    {
        "instruction": np.repeat(["a", "b", "c"], [4, 3, 1]),
        "output": ["1", "2", "3", "4", "5", "6", "7", "8"],
        "generator": list("pqrspqrp"),
        "score": [1.0, 4.0, 2.0, 3.0, 0.0, 2.0, 1.0, 9.0],
    }
)
KINDS = ("checks", "corrections", "critiques", "pairs", "rankings", "ratings", "reactions", "sets", "triplets")


def test_a_kind_is_found_by_its_name_and_a_wrong_name_by_the_nearest() -> None:
    assert set(kinds()) == set(KINDS)
    assert all(kind(name).name == name for name in KINDS)
    with pytest.raises(UserError, match="there is no feedback `ratnigs`; did you mean `ratings`"):
        kind("ratnigs")
    with pytest.raises(UserError, match="pairs: there is no design `swis`; did you mean `swiss`"):
        kind("pairs").build(RESPONSES, "swis")


def test_what_is_put_together() -> None:
    adjacent = kind("pairs").build(RESPONSES, "adjacent")
    assert adjacent[["output_1", "output_2"]].to_numpy().tolist() == [["1", "2"], ["3", "4"], ["5", "6"]]
    ranked = kind("pairs").build(RESPONSES, "ranked")
    met = {frozenset(p) for p in zip(ranked["output_1"], ranked["output_2"], strict=True)}
    assert met == {frozenset(p) for p in ("24", "43", "31", "67", "75")}
    assert kind("pairs").build(adjacent) is adjacent  # pairs are pairs already
    lists = kind("rankings").build(RESPONSES)
    assert lists["outputs"].tolist() == [["1", "2", "3", "4"], ["5", "6", "7"]]
    assert lists["generators"].tolist() == [["p", "q", "r", "s"], ["p", "q", "r"]]
    assert len(kind("ratings").build(RESPONSES)) == 8
    assert kind("ratings").build(adjacent)["output"].tolist() == ["1", "3", "5", "2", "4", "6"]
    triplets = kind("triplets").build(RESPONSES, seed=1)
    assert triplets["instruction"].tolist() == ["a", "b"]
    assert all(len(set(row)) == 3 for row in triplets[["anchor", "output_1", "output_2"]].to_numpy().tolist())
    with pytest.raises(UserError, match="no instruction has three different outputs"):
        kind("triplets").build(RESPONSES.iloc[5:])


def test_all_triples_are_drawn_evenly() -> None:
    many = pd.DataFrame({"instruction": np.repeat([f"x{i}" for i in range(3000)], 3), "output": list("abc") * 3000})
    anchors = kind("triplets").build(many)["anchor"].value_counts(normalize=True)
    np.testing.assert_allclose(anchors, 1 / 3, atol=0.035)


@pytest.mark.parametrize("name", ["pairs", "rankings", "triplets"])
def test_the_order_in_which_outputs_are_shown_is_drawn_and_undone(name: str) -> None:
    many = pd.DataFrame(
        {"instruction": np.repeat([f"x{i}" for i in range(400)], 3), "output": [f"y{i}" for i in range(1200)]}
    )
    feedback = kind(name)
    rows = feedback.build(many, seed=1)
    shown, undo = feedback.orient(rows, 5)
    if name == "rankings":  # whoever names them as they are shown names them in a drawn order
        answered = undo(shown.assign(ranking=[[0, 1, 2]] * len(shown)))
        assert answered["outputs"].tolist() == rows["outputs"].tolist()
        named = [[of[k] for k in order] for of, order in zip(rows["outputs"], answered["ranking"], strict=True)]
        assert named == shown["outputs"].tolist()
        first = np.bincount([r[0] for r in answered["ranking"]], minlength=3) / len(rows)
        np.testing.assert_allclose(first, 1 / 3, atol=0.1)
    else:
        answered = undo(shown.assign(**{feedback.answer: 1.0}))
        pd.testing.assert_frame_equal(answered[list(rows.columns)], rows)
        chosen = np.where(answered[feedback.answer] == 1, answered["output_1"], answered["output_2"])
        assert chosen.tolist() == shown["output_1"].tolist()
        assert answered[feedback.answer].mean() == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("name", KINDS)
def test_ids_are_of_what_a_row_shows(name: str) -> None:
    feedback = kind(name)
    rows = feedback.build(RESPONSES, seed=1)
    for ids in (feedback.unit, feedback.address):
        assert ids(rows).shape == (len(rows),) and len(set(ids(rows))) == len(rows)
        assert ids(rows.iloc[::-1]).tolist() == ids(rows).tolist()[::-1]
        assert not set(ids(rows.assign(instruction="other"))) & set(ids(rows))
        assert ids(rows.iloc[:0]).shape == (0,)
    shown, _ = feedback.orient(rows, 5)
    assert feedback.unit(shown).tolist() == feedback.unit(rows).tolist()  # whatever the order
    assert not set(feedback.address(rows.assign(topic="t"))) & set(feedback.address(rows))
    if name in ("pairs", "triplets"):
        turned = rows.rename(columns={"output_1": "output_2", "output_2": "output_1"})
        assert not set(feedback.address(turned)) & set(feedback.address(rows))


def test_a_critique_that_failed_has_no_polarity() -> None:
    rows = {"text": ["good", ""], "polarity": [0.5, 0.0], "status": ["ok", "error"], "price": 0.0}
    assert kind("critiques").summary(pd.DataFrame(rows))["mean_polarity"] == 0.5
    failed = kind("critiques").summary(pd.DataFrame(rows).iloc[1:])
    assert failed["mean_polarity"] is None


class Sniffer(Protocol):
    """The giver of a kind that another package has."""

    def sniff(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame: ...


def test_the_giver_of_another_packages_kind_is_built_by_its_own_protocol() -> None:
    with pytest.raises(UserError, match="PersonMatcher` cannot play the role Sniffer: it lacks `sniff`"):
        config.build(Sniffer, "matcher")
