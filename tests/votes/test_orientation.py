"""Which output of a pair stands first in a row, and on which side its verdict, changes no answer: property tests.

Here what farm/votes and the annotators compute; tests/eval/test_orientation.py has evaluation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.calibration.ballots import ballots
from annotators.calibration.calibrate import of_votes
from annotators.runs.aggregation import WAYS, aggregated
from farm.base.errors import UserError
from farm.tables.records import annotation_table, swapped
from farm.votes.analysis import analyze_annotator
from farm.votes.competence import dawid_skene, votes
from farm.votes.noise import estimate_noise, fit_splits
from farm.votes.table import from_table

PAIRS, PEOPLE = 40, 5
turns = st.integers(0, 2**32).map(lambda seed: np.random.Generator(np.random.Philox(seed)).random(PAIRS * PEOPLE) < 0.5)
"""which rows are turned"""


def cast(seed: int = 0, same: int = 0) -> pd.DataFrame:
    """Five people's votes on 40 pairs, a vote a row, each shown in an order of its own; ``same`` pairs of one text."""
    generator = np.random.Generator(np.random.Philox(seed))
    pair = np.repeat(np.arange(PAIRS), PEOPLE)
    margin = generator.normal(0, 2, PAIRS)[pair]
    said = np.where(generator.random(pair.size) < 1 / (1 + np.exp(-margin)), 1.0, 2.0)
    said[generator.random(pair.size) < 0.1] = 1.5
    pairs = pd.DataFrame({
        "instruction": [f"ask {p}" for p in pair],
        "output_1": [f"one {p} " * (1 + p % 3) for p in pair],
        "output_2": [f"one {p} " * (1 + p % 3) if p < same else f"two {p} " * (1 + p % 5) for p in pair],
        "generator_1": "x", "generator_2": "y",
    })  # fmt: skip
    who = np.array([f"person {k % PEOPLE}" for k in range(pair.size)], dtype=object)
    table = annotation_table(pairs, who, said, np.full(pair.size, np.nan), seed=0)
    return table.assign(replicate=np.arange(pair.size) % PEOPLE, shown_first=generator.integers(1, 3, pair.size))


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the outputs of each row sorted."""
    return swapped(table, (table["output_1"] > table["output_2"]).to_numpy())


@settings(max_examples=5, deadline=None)
@given(turns)
def test_the_table_of_votes(turned):
    plain, mixed = (from_table(t, "t") for t in (cast(same=3), swapped(cast(same=3), turned)))
    for column in ("item", "first", "shown", "length_1", "list_2"):
        pd.testing.assert_series_equal(plain[column], mixed[column])
    told = plain["first"].notna()
    assert (~told).sum() == 3 * PEOPLE  # nothing tells two outputs of one text apart
    pd.testing.assert_frame_equal(plain.loc[told, ["model_1", "reversed"]], mixed.loc[told, ["model_1", "reversed"]])
    assert analyze_annotator(plain).to_dict() == analyze_annotator(mixed).to_dict()


@settings(max_examples=5, deadline=None)
@given(turns)
def test_noise_and_ballots(turned):
    plain, mixed = (ballots(from_table(t, "t")) for t in (cast(), swapped(cast(), turned)))
    for name in ("item", "annotator", "answer", "terms", "sides"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(mixed, name))
    assert (
        estimate_noise(plain.table["item"], plain.table["first"]).to_dict()
        == estimate_noise(mixed.table["item"], mixed.table["first"]).to_dict()
    )


def test_a_calibration_does_not_depend_on_the_orders():
    """Fails where a vote is told of the row's first output and not of the pair's: a flip rate of .5."""
    turned = np.arange(PAIRS * PEOPLE) % 2 == 1
    plain, mixed = (of_votes(from_table(t, "t"), "t", groups=1) for t in (cast(), swapped(cast(), turned)))
    assert plain.to_dict() == mixed.to_dict()
    assert plain.flip == pytest.approx(plain.noise.flip_one_against_one) and plain.flip < 0.35


def test_the_test_of_splits_does_not_depend_on_which_output_is_called_first():
    """Five votes on each of 5,995 pairs (UKPConvArg's splits): turning any pairs changes neither fit nor test."""
    item = np.repeat(np.arange(5995), 5)
    counts = np.array([1547, 803, 594, 599, 845, 1607])
    first = np.concatenate([np.repeat([1.0] * k + [0.0] * (5 - k), 1) for k in np.repeat(np.arange(6), counts)])
    turned = (np.arange(5995) % 3 == 0)[item]
    plain, mixed = estimate_noise(item, first), estimate_noise(item, np.where(turned, 1 - first, first))
    for one, other in zip(plain.fits, mixed.fits, strict=True):
        assert one.chi_square == pytest.approx(other.chi_square, abs=1e-6)
        assert (one.degrees, one.votes, one.items) == (other.degrees, 5, 5995)
    assert [f.degrees for f in plain.fits] == [1, 1, 0] and np.isnan(plain.fits[2].p_value)
    assert fit_splits(counts, "flip").degrees == 4  # of one order that means something: six kinds of splits


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=4, deadline=None)
@given(turned=turns)
def test_aggregation(way, turned):
    plain, mixed = (in_order(aggregated(t, way)) for t in (cast(same=2), swapped(cast(same=2), turned)))
    pd.testing.assert_series_equal(plain["preference"], mixed["preference"])
    np.testing.assert_allclose(plain["p_first"], mixed["p_first"], atol=1e-6)
    np.testing.assert_allclose(plain["agreement"], mixed["agreement"], atol=1e-12)
    assert (plain["preference"][:2] == 1.5).all()


@settings(max_examples=4, deadline=None)
@given(turns)
def test_competence(turned):
    (one, items, names), (other, same_items, same_names) = votes(cast(same=2)), votes(swapped(cast(same=2), turned))
    pd.testing.assert_frame_equal(items, same_items)
    assert names == same_names and len(items) == PAIRS - 2
    np.testing.assert_array_equal(one.label, other.label)
    np.testing.assert_array_equal(dawid_skene(one).confusion, dawid_skene(other).confusion)


def test_columns_about_one_side_turn_with_it():
    row = pd.DataFrame({"output_1": ["a"], "output_2": ["b"], "output_1_len": [1], "output_2_len": [2]})
    turned = swapped(row, np.array([True])).iloc[0]
    assert (turned["output_1_len"], turned["output_2_len"]) == (2, 1)


def test_an_annotator_without_a_name_is_refused():
    rows = cast()
    rows.loc[3, "annotator"] = None
    with pytest.raises(UserError, match="t: row 4: `annotator` is missing"):
        from_table(rows, "t")
