"""Principles: what is kept of the proposed ones, in which order, and whether planted ones are found again."""

import numpy as np
import pandas as pd
import pytest

from farm.base.errors import UserError
from farm.votes.predicates import Predicate, differences, mined, votes
from farm.votes.principles import Mining, alike, chosen, counted, decided, unanimous
from farm.worlds.text_features import TextFeatures

NAN = float("nan")


def column(votes_for: int, against: int, abstain: int, invalid: int = 0) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0, NAN], [votes_for, against, abstain, invalid])


def test_what_is_kept_has_ten_percent_of_all_votes_more_for_than_against_and_is_readable() -> None:
    """The filter of the paper's code: the share is of all votes, and not of those that are readable."""
    seen = np.stack(
        [
            column(9, 0, 91),  # too seldom, though it never errs
            column(10, 0, 40, 50),  # half of it cannot be read
            column(10, 0, 41, 49),  # net 10
            column(40, 40, 20),  # as often against as for
            column(50, 20, 30),  # net 30
        ],
        axis=1,
    )
    assert chosen(seen, Mining()).tolist() == [4, 2]
    assert chosen(seen, Mining(n=1)).tolist() == [4]
    assert counted(seen).iloc[2].tolist() == [10, 0, 41, 49]
    assert chosen(seen, Mining(least=0.09)).tolist() == [4, 2, 0]


def test_the_first_of_each_cluster_of_like_voters_stays() -> None:
    """Of 1.5 n principles those that vote alike are one, so that a copy takes no place in the constitution."""
    draw = np.random.default_rng(1)
    one, two = (np.where(draw.random(400) < share, 1.0, -1.0) for share in (0.9, 0.7))
    seen = np.stack([one, one, two], axis=1)
    assert chosen(seen, Mining(n=2)).tolist() == [0, 2]
    assert chosen(seen, Mining(n=3)).tolist() == [0, 1, 2]


def test_rounds_are_joined_unanimously() -> None:
    rounds = np.array([[1, 1, 0, NAN, NAN], [1, -1, 0, NAN, 1], [1, 1, 0, NAN, 1]])[:, :, None]
    np.testing.assert_array_equal(unanimous(rounds)[:, 0], [1, 0, 0, NAN, 0])


def test_the_first_that_applies_decides_or_the_sum() -> None:
    seen = np.array([[1.0, -1, -1], [0, -1, 1], [0, 0, 0], [0, 1, 1]])
    assert decided(seen, "first").tolist() == [1, -1, 0, 1]
    assert decided(seen, "sum").tolist() == [-1, 0, 0, 1]
    assert decided(np.zeros((2, 0)), "first").tolist() == [0, 0]
    unread = np.array([[NAN, -1.0, 1], [NAN, NAN, 0], [0, NAN, 1]])
    for rule in ("first", "sum"):
        assert decided(unread, rule).tolist() == [[-1, 0, 1], [0, 0, 1]][rule == "sum"]


def test_alike_sentences_count_as_one() -> None:
    said = (
        ["Select the longer response."] * 3 + ["Select the response that is longer."] * 2 + ["Prefer lists of items."]
    )
    assert alike(said, 3) == list(dict.fromkeys(said))
    assert alike(said, 2) == ["Select the longer response.", "Prefer lists of items."]
    assert alike([], 4) == []


def pairs_needed(relevance: float, spurious: float, flips: float, deviations: float = 2.6) -> float:
    """Pairs from which on a planted principle stands so many standard deviations above a spurious one.

    Of N pairs the planted one has N r (1 - 2e) net votes where a share r is relevant to it and a share e of the labels
    is turned round; the spurious one, relevant to r', has 0 with a standard deviation of sqrt(N r').
    """
    return deviations**2 * spurious / (relevance * (1 - 2 * flips)) ** 2


def test_pairs_needed_for_a_principle_that_seldom_applies() -> None:
    """[num] r .2, r' .9, flips .25: 608, where 200 are far too few; and what 608 give (.990 of draws)."""
    assert pairs_needed(0.2, 0.9, 0.25) == pytest.approx(608.4)
    assert pairs_needed(1.0, 1.0, 0.25) < 200
    draw = np.random.default_rng(2)

    def ahead(n: int, spurious: int = 1, draws: int = 4000) -> float:
        """How often the planted one has more net votes than each of so many spurious ones."""
        right, wrong = draw.multinomial(n, [0.2 * 0.75, 0.2 * 0.25, 0.8], draws).T[:2]
        others = draw.multinomial(n, [0.45, 0.45, 0.1], (draws, spurious))
        return float(np.mean(right - wrong > (others[..., 0] - others[..., 1]).max(axis=1)))

    assert ahead(608) == pytest.approx(0.990, abs=0.008) and ahead(200) < 0.94
    assert ahead(608, spurious=10) == pytest.approx(0.915, abs=0.02) and ahead(200, spurious=10) < 0.6


class Three:
    """Features that are written in the texts: three numbers."""

    gold_weights = {"a": 1.0, "b": 1.0, "c": 1.0}  # noqa: RUF012

    def __call__(self, instructions: list[str], outputs: list[str]) -> pd.DataFrame:
        return pd.DataFrame([[float(x) for x in text.split()] for text in outputs], columns=["a", "b", "c"])


def planted(n: int, flips: float, seed: int = 3) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Pairs that differ in all three features (r = 1), preferred for more of a."""
    draw = np.random.default_rng(seed)
    texts = draw.random((2, n, 3))
    pairs = pd.DataFrame({f"output_{k + 1}": [" ".join(map(str, t)) for t in texts[k]] for k in range(2)})
    labels = np.where(texts[0, :, 0] > texts[1, :, 0], 1.0, -1.0) * np.where(draw.random(n) < flips, -1, 1)
    return pairs.assign(instruction="q"), labels, np.arange(n, dtype=np.uint64)


@pytest.mark.parametrize("flips", [0.0, 0.25])
def test_planted_principles_are_found_again_and_turn_with_the_labels(flips: float) -> None:
    pairs, labels, ids = planted(200, flips)
    found = differences(Three(), pairs)
    principles, counts = mined(Three(), found, labels, ids, Mining(), seed=0)
    assert principles[0] == Predicate(says="Select the response that has more a.", feature="a", more=True)
    assert counts["votes_for"][0] == pytest.approx(200 * (1 - flips), abs=20)
    turned, _ = mined(Three(), found, -labels, ids, Mining(), seed=0)
    assert (turned[0].feature, turned[0].more) == ("a", False)
    # three proposals in ten that explain nothing change nothing here
    assert mined(Three(), found, labels, ids, Mining(), seed=0, error=0.3)[0][0] == principles[0]


def test_neither_the_order_of_pairs_nor_that_of_outputs_matters() -> None:
    pairs, labels, ids = planted(120, 0.1)
    known = mined(Three(), differences(Three(), pairs), labels, ids, Mining(), seed=5)[0]
    order = np.random.default_rng(4).permutation(120)
    mixed = differences(Three(), pairs.iloc[order].reset_index(drop=True))
    assert set(mined(Three(), mixed, labels[order], ids[order], Mining(), seed=5)[0]) == set(known)
    turned = pairs.rename(columns={"output_1": "output_2", "output_2": "output_1"})
    assert mined(Three(), differences(Three(), turned), -labels, ids, Mining(), seed=5)[0] == known


def test_a_feature_that_selects_as_another_does_is_the_same_principle() -> None:
    pairs, labels, ids = planted(50, 0.0)
    found = differences(Three(), pairs)
    with_copy = found.assign(a_squared=found["a"] * 3)
    assert (
        mined(Three(), with_copy, labels, ids, Mining(), seed=0)[0]
        == mined(Three(), found, labels, ids, Mining(), seed=0)[0]
    )


def test_text_features_say_their_principles_in_words_and_unknown_ones_are_refused() -> None:
    pairs = pd.DataFrame(
        {
            "instruction": "Name fruits.",
            "output_1": "- figs\n- plums",
            "output_2": [f"Figs and plums {k}." for k in range(9)],
        }
    )
    found = differences(TextFeatures(), pairs)
    principles, _ = mined(TextFeatures(), found, np.ones(9), np.arange(9, dtype=np.uint64), Mining(), seed=0)
    assert "Select the response that has a list." in [p.says for p in principles]
    with pytest.raises(UserError, match="did you mean `structure`"):
        votes([Predicate(feature="structur")], found)
