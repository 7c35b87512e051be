"""Inverse propensities: expectation, error and order in closed form."""

import numpy as np
import pandas as pd
import pytest

from farm.base.arrays import Floats
from reference_methods.studies.missing_reactions import MissingReactions, in_order

RARE = 1 / np.arange(1, 21)


def expected(propensity: Floats, liking: float, clip: float) -> Floats:
    """E R of each answer."""
    return liking * np.minimum(1.0, propensity / max(clip, 1e-300))


def mean_square(propensity: Floats, liking: float, clip: float, chances: int) -> float:
    """The expected squared error of the mean of n, over the answers: variance and squared bias."""
    seen = propensity * liking
    variance = seen * (1 - seen) / np.square(np.maximum(propensity, clip)) / chances
    return float((variance + np.square(expected(propensity, liking, clip) - liking)).mean())


@pytest.mark.parametrize(
    ("chances", "clip", "error"),
    [
        *[(20, m, e) for m, e in ((0, 0.250), (0.1, 0.159), (0.2, 0.119), (0.5, 0.150), (1, 0.184))],
        *[(100, m, e) for m, e in ((0, 0.050), (0.1, 0.044), (0.2, 0.076), (0.5, 0.140), (1, 0.181))],
        (500, 0, 0.010),
    ],
)
def test_the_squared_error_has_its_minimum_where_bias_and_variance_meet(
    chances: int, clip: float, error: float
) -> None:
    """[num] of 20 answers with propensities 1/k and liking .5."""
    assert mean_square(RARE, 0.5, clip, chances) == pytest.approx(error, abs=1e-3)


@pytest.mark.parametrize(("clip", "share"), [(1.0, 0.77), (0.2, 0.83), (0.1, 1.0), (0.05, 1.0)])
def test_the_share_of_pairs_that_are_right_in_expectation(clip: float, share: float) -> None:
    """[num] likings .3 and .7 in turn."""
    likings = np.where(np.arange(20) % 2 == 0, 0.3, 0.7)
    found = np.array([expected(RARE[k : k + 1], likings[k], clip)[0] for k in range(20)])
    assert in_order(found, likings) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("clip", [0.05, 0.1, 0.2])
def test_drawn_reactions_have_the_error_that_is_computed(clip: float) -> None:
    tables = [MissingReactions(chances=100, clip=clip).tables(seed)["errors"] for seed in range(60)]
    squares = pd.concat(tables).groupby("method")["square"].mean()
    for method, known in (("ips", clip), ("naive", 1.0)):
        of_both = np.mean([mean_square(RARE[k::2], liking, known, 100) for k, liking in ((0, 0.3), (1, 0.7))])
        assert squares[method] == pytest.approx(of_both, rel=0.08)


def test_a_clip_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`clip` = 1\.5 is wrong"):
        MissingReactions(clip=1.5)


def test_what_the_naive_share_gets_wrong_are_pairs_whose_better_answer_is_the_rarer() -> None:
    likings = np.where(np.arange(20) % 2 == 0, 0.3, 0.7)
    naive = RARE * likings
    assert in_order(naive, likings, RARE, rarer=False) == 1.0
    share = in_order(naive, likings, RARE, rarer=True)
    oftener, rarer = 45, 55  # of the 100 pairs
    assert (oftener + rarer * share) / 100 == pytest.approx(in_order(naive, likings))
    assert np.isnan(in_order(naive, likings, np.full(20, 0.25)))
