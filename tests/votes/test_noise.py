"""Flip rate, difficulty and the fit of vote splits: known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import expit

from farm.votes import noise
from farm.votes.competence import Votes, dawid_skene
from farm.votes.table import read_votes


def test_flip_rates():
    """.6566 is 0.262 as one against three, 0.220 as one against one; p = .25 predicts .672."""
    assert noise.flip_from_agreement(0.6566, 3) == pytest.approx(0.262, abs=5e-4)
    assert noise.flip_from_agreement(0.6566, 1) == pytest.approx(0.220, abs=5e-4)
    assert noise.agreement_from_flip(0.25, 3) == pytest.approx(0.672, abs=5e-4)


@pytest.mark.parametrize("flip", [0.0, 0.03])
@pytest.mark.parametrize("sigma", [0.5, 2.98, 30.0, 1000.0])
def test_chances_of_splits_are_the_integral_over_all_margins(sigma, flip):
    def density(margin, k):
        p = expit(margin) * (1 - flip) + expit(-margin) * flip
        return 2 * stats.binom.pmf(k, 5, [p, 1 - p]).mean() * stats.norm.pdf(margin, scale=sigma)

    clear = 60.0  # beyond it, sigmoid(-60) is below all rounding
    for k, chance in enumerate(noise.split_chances(5, sigma=sigma, flip=flip)):
        near = integrate.quad(density, 0, min(clear, 9 * sigma), args=(k,), epsabs=1e-12, limit=200)[0]
        far = 2 * stats.norm.sf(clear, scale=sigma) * stats.binom.pmf(k, 5, [flip, 1 - flip]).mean()
        assert chance == pytest.approx(near + far, abs=1e-10)
    np.testing.assert_allclose(noise.split_chances(5, sigma=np.inf, flip=0.1), noise.split_chances(5, flip=0.1))
    np.testing.assert_allclose(noise.split_chances(5, sigma=0.0), stats.binom.pmf(range(6), 5, 0.5))


def test_chances_of_some_splits_are_those_among_all():
    some = np.array([3, 40, 77])
    for sigma in (None, 0.4, 6.0):
        whole = noise.split_chances(80, sigma=sigma, flip=0.1)
        assert whole.sum() == pytest.approx(1)
        found = noise.split_chances(80, sigma=sigma, flip=0.1, of_votes=some)
        np.testing.assert_allclose(found, whole[some], rtol=1e-9)


def test_many_votes_an_item_are_fitted_like_few():
    histogram = np.round(5000 * noise.split_chances(60, sigma=2.0))
    assert noise.fit_splits(histogram, "difficulty").sigma == pytest.approx(2.0, abs=0.05)


def likelihood(histogram, fit):
    return float(np.asarray(histogram) @ np.log(np.maximum(fit.expected, 1e-300)))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=5, max_size=8).filter(any))
def test_two_parameters_fit_no_worse_than_one_of_them(histogram):
    """Failed where constant flips fit best: the spread of the margins stopped at 30."""
    flip, difficulty, both = (noise.fit_splits(histogram, m) for m in ("flip", "difficulty", "difficulty and flip"))
    most = max(likelihood(histogram, flip), likelihood(histogram, difficulty))
    assert likelihood(histogram, both) >= most - 1e-9 * sum(histogram)
    assert np.isfinite(both.chi_square) and np.isfinite(difficulty.chi_square)


def test_constant_flips_are_found_among_both():
    histogram = np.round(3000 * noise.split_chances(5, flip=0.14))
    both = noise.fit_splits(histogram, "difficulty and flip")
    assert both.flip == pytest.approx(0.14, abs=1e-3) and both.sigma > 1000 and both.chi_square < 0.01


def test_ukp_splits(shared_data):
    """Constant flips are rejected (348), difficulty is not (7.2), with a 1.6 % flip 1.9."""
    votes = read_votes(shared_data("human/ukp_convarg_crowd") / "ukp_crowd.csv.gz")
    histogram = noise.split_histogram(votes["item"], votes["given"], 5)
    assert histogram.sum() == 5995
    flip, difficulty, both = (noise.fit_splits(histogram, m) for m in ("flip", "difficulty", "difficulty and flip"))
    assert flip.flip == pytest.approx(0.141, abs=5e-4) and flip.chi_square == pytest.approx(348, abs=1)
    assert difficulty.sigma == pytest.approx(2.98, abs=5e-3) and difficulty.chi_square == pytest.approx(7.2, abs=0.05)
    assert difficulty.p_value == pytest.approx(0.13, abs=5e-3)
    assert both.flip == pytest.approx(0.016, abs=5e-4) and both.chi_square == pytest.approx(1.9, abs=0.05)
    assert difficulty.expected == pytest.approx((0.264, 0.132, 0.104, 0.104, 0.132, 0.264), abs=5e-4)
    decisive = votes[votes["given"] != 0.5]
    assert (decisive["shown"] > 0.5).mean() == pytest.approx(0.503, abs=5e-4)
    far = decisive[(decisive["length_1"] - decisive["length_2"]).abs() > 30]
    longer = ((far["first"] > 0.5) == (far["length_1"] > far["length_2"])).mean()
    assert longer == pytest.approx(0.708, abs=1e-3)


def test_dawid_skene_recovers_workers_and_beats_the_majority():
    generator = np.random.default_rng(0)
    items, workers = 4000, 100
    truth, skill = generator.integers(0, 2, items), generator.uniform(0.55, 0.95, workers)
    item = np.repeat(np.arange(items), 5)
    worker = generator.integers(0, workers, item.size)
    label = np.where(generator.random(item.size) < skill[worker], truth[item], 1 - truth[item])
    found = dawid_skene(Votes.of(item, worker, label))
    majority = np.bincount(item, weights=label) > 2.5
    assert (found.posterior.argmax(1) == truth).mean() > (majority == truth).mean() + 0.01
    assert np.corrcoef(found.accuracy, skill)[0, 1] > 0.93
    shuffled = generator.permutation(item.size)
    again = dawid_skene(Votes.of(item[shuffled], worker[shuffled], label[shuffled]))
    np.testing.assert_allclose(found.posterior, again.posterior, atol=1e-6)
