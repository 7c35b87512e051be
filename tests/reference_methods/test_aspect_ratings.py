"""Ratings of four aspects, an overall rating, a halo and false top ratings."""

import numpy as np
import pytest

from reference_methods.studies.aspect_ratings import ASPECTS, AspectRatings, ordered, utility
from reference_methods.studies.parts import agrees, fit

NOISE = 0.7


def right_labels(error: float) -> float:
    """How often the higher of two normal scores has the higher utility, their variance being 1 + error of the
    utility's."""
    return float(0.5 + np.arcsin(1 / np.sqrt(1 + error)) / np.pi)


@pytest.mark.parametrize(
    ("error", "share"),
    [
        (ASPECTS * NOISE**2 / 1**2, 0.697),
        (ASPECTS * NOISE**2 / 2**2, 0.806),
        (ASPECTS * NOISE**2 / 4**2, 0.893),
        (NOISE**2, 0.806),
        (1 + NOISE**2, 0.718),
    ],
)
def test_the_share_of_right_labels_has_a_closed_form(error: float, share: float) -> None:
    assert right_labels(error) == pytest.approx(share, abs=6e-4)


@pytest.mark.parametrize(("slope", "halo", "spread"), [(1.0, 0.0, 0.0), (2.0, 1.0, 0.3), (4.0, 0.0, 0.0)])
def test_labels_of_unrounded_ratings_are_right_as_often(slope: float, halo: float, spread: float) -> None:
    study = AspectRatings(slope=slope, halo=halo, levels=None, spread=spread, writers=400, unvalued=0)
    draws = np.random.default_rng(5)
    labels = study.labelled(study.answers(5_000, draws), draws)
    right = {method: float((utility(first) > utility(second)).mean()) for method, (first, second) in labels.items()}
    assert right["aspects"] == pytest.approx(right_labels(ASPECTS * NOISE**2 / slope**2), abs=0.02)
    assert right["overall"] == pytest.approx(right_labels(halo**2 + NOISE**2), abs=0.02)
    assert right["binary"] == pytest.approx(right["overall"], abs=0.02)  # as good, but fewer of them
    assert len(labels["binary"][0]) == 20_000 < len(labels["overall"][0]) == 30_000


def test_rounded_labels_of_one_slope_are_as_good_as_the_overall_ones_and_false_tops_turn_some() -> None:
    study = AspectRatings(halo=0.0, unvalued=0)
    draws = np.random.default_rng(6)
    labels = study.labelled(study.answers(5_000, draws), draws)
    right = {method: float((utility(first) > utility(second)).mean()) for method, (first, second) in labels.items()}
    assert right["planted"] < right["overall"] - 0.05  # a tenth of all pairs has a false top in it
    assert right["aspects"] == pytest.approx(right["overall"], abs=0.05)  # ties are left out


def drawn_labels(slope: float, halo: float, levels: int | None) -> dict[str, float]:
    """How often the mean of aspects and an overall rating are right of two answers; equal ratings are one half."""
    study, draws = (
        AspectRatings(slope=slope, halo=halo, levels=levels, spread=0.0, unvalued=0),
        np.random.default_rng(8),
    )
    two = study.answers(20_000, draws)[:, :2]
    ratings = {"aspects": study.rating(slope * two[..., :ASPECTS], draws).mean(-1)}
    ratings["overall"] = study.rating(utility(two) + halo * two[..., ASPECTS], draws)
    lead = utility(two)[:, 0] - utility(two)[:, 1]
    return {name: float(agrees(said[:, 0] - said[:, 1], lead).mean()) for name, said in ratings.items()}


def test_aspects_win_where_their_slope_outweighs_four_noises_and_rounding_costs_both() -> None:
    """[num] iff g^2 (h^2 + s^2) > k s^2; [trend] of seven levels .683 (g = 1), .787 (g = 2), overall .782."""
    for slope, halo in ((1.0, 0.0), (1.0, 1.0), (2.0, 1.0), (4.0, 0.0)):
        exact, rounded = (drawn_labels(slope, halo, levels) for levels in (None, 7))
        wins = slope**2 * (halo**2 + NOISE**2) > ASPECTS * NOISE**2
        assert (exact["aspects"] > exact["overall"]) == wins == (rounded["aspects"] > rounded["overall"])
        assert all(rounded[name] < exact[name] for name in exact)
    equal = drawn_labels(2.0, 0.0, None)
    assert equal["aspects"] == pytest.approx(equal["overall"], abs=0.01)
    rounded = {slope: drawn_labels(slope, 0.0, 7) for slope in (1.0, 2.0)}
    assert rounded[1.0]["aspects"] == pytest.approx(0.683, abs=0.01)
    assert rounded[2.0]["aspects"] == pytest.approx(0.787, abs=0.01)
    assert rounded[2.0]["overall"] == pytest.approx(0.782, abs=0.01)


def test_false_tops_are_the_lowest_rated() -> None:
    study = AspectRatings(planted=0.25, levels=7)
    found = study.with_false_tops(np.array([[3.0, 1.0, 5.0, 4.0]]), np.random.default_rng(0))
    assert found.tolist() == [[3.0, 7.0, 5.0, 4.0]]


def test_equal_ratings_are_no_label() -> None:
    answers = np.arange(3.0).reshape(1, 3, 1)
    first, second = ordered(answers, np.array([[2.0, 2.0, 5.0]]), np.array([[0, 1], [0, 2], [1, 2]]))
    assert (first.ravel().tolist(), second.ravel().tolist()) == ([2.0, 2.0], [0.0, 1.0])


def test_pairs_of_ratings_recover_the_weights_of_the_aspects() -> None:
    study = AspectRatings(halo=1.0, levels=None, unvalued=2)
    draws = np.random.default_rng(7)
    first, second = study.labelled(study.answers(3_000, draws), draws)["overall"]
    v = fit(first - second, np.ones(len(first)))
    # up to scale: every aspect 1, the emphasis the halo, and nothing of what nobody values
    np.testing.assert_allclose(v / v[:ASPECTS].mean(), [1, 1, 1, 1, 1, 0, 0], atol=0.15)


def test_a_halo_teaches_the_model_and_a_seed_gives_one_result() -> None:
    study = AspectRatings(instructions=150)
    tables = study.tables(3)
    right = tables["accuracy"].groupby("method")["right"].mean()
    assert right["aspects"] > right["overall"] + 0.03
    wins = tables["wins"].groupby("method")["right"].agg(["size", "mean"])
    assert set(wins["size"]) == {study.test} and wins["mean"].min() > 0.7  # the best of 16 is clearly up for all
    again = study.tables(3)
    assert all(again[name].equals(table) for name, table in tables.items())


def test_without_noise_a_model_of_mean_ratings_is_almost_always_right() -> None:
    """The Bayes accuracy is 1 there; with noise less of it is reached from as many labels."""
    right = [
        AspectRatings(halo=0.0, levels=None, noise=noise, instructions=400, unvalued=2).tables(3)["accuracy"]
        for noise in (0.0, 2.0)
    ]
    clean, noisy = (table[table["method"] == "aspects"]["right"].mean() for table in right)
    assert clean > 0.98 and noisy < clean
