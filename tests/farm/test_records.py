"""Rows and pair tables: swapping is an involution, and the order of presentation is undone."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from farm.tables.records import PairIds, annotation_table, in_random_order, swapped

PAIRS = pd.DataFrame(
    {
        "instruction": [f"i{n % 50}" for n in range(400)],
        "output_1": [f"a{n}" for n in range(400)],
        "output_2": [f"b{n}" for n in range(400)],
        "generator_1": "one",
        "generator_2": "two",
    }
)


def _prefers_first_shown(pairs: pd.DataFrame) -> pd.DataFrame:
    n = len(pairs)
    return annotation_table(pairs, "first", np.ones(n), np.full(n, 0.9), seed=0)


@given(st.lists(st.booleans(), min_size=400, max_size=400))
def test_swapping_twice_changes_nothing(where: list[bool]) -> None:
    annotated = _prefers_first_shown(PAIRS)
    mask = np.array(where)
    pd.testing.assert_frame_equal(swapped(swapped(annotated, mask), mask), annotated, check_exact=False)


def test_pair_ids_are_the_same_in_both_orders() -> None:
    ids, mirrored = PairIds(PAIRS), PairIds(swapped(PAIRS, np.ones(len(PAIRS), bool)))
    np.testing.assert_array_equal(ids.pair, mirrored.pair)
    np.testing.assert_array_equal(ids.swapped, ~mirrored.swapped)


def test_random_presentation_turns_a_position_bias_into_noise() -> None:
    table = in_random_order(_prefers_first_shown, PAIRS, seed=3)
    assert table["output_1"].tolist() == PAIRS["output_1"].tolist()
    assert abs(np.mean(table["preference"] == 1) - 0.5) < 0.1
    assert np.allclose(table["p_first"], np.where(table["preference"] == 1, 0.9, 0.1))
    np.testing.assert_array_equal(table["shown_first"], table["preference"])  # this annotator prefers what it saw first
    mirrored = in_random_order(_prefers_first_shown, swapped(PAIRS, np.ones(400, bool)), seed=3)
    np.testing.assert_array_equal(mirrored["preference"], 3 - table["preference"])  # which output won is the same
