"""Detecting wrong labels by their losses: known parts, and the trends of the studies."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from reference_methods.parts.label_weights import history_weights
from reference_methods.studies.bad_pairs import BadPairs
from reference_methods.studies.denoising_users import DenoisingUsers
from reference_methods.studies.parts import auroc, fit, losses


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    assert auroc(np.array([3.0, 1.0, 2.0]), np.array([True, False, False])) == 1.0
    assert auroc(np.array([1.0, 1.0, 0.0]), np.array([True, False, True])) == 0.25  # one tie, one below
    draws = np.random.default_rng(0)
    assert auroc(draws.normal(size=20_000), draws.random(20_000) < 0.2) == pytest.approx(0.5, abs=0.02)


def test_newton_finds_where_the_gradient_is_zero_and_a_strong_ridge_the_prior() -> None:
    draws = np.random.default_rng(1)
    x, prior = draws.normal(size=(200, 3)), np.array([1.0, 0.0, -1.0])
    signs = np.where(draws.random(200) < expit(x @ prior), 1.0, -1.0)
    v = fit(x, signs)
    slope = -(signs * expit(-signs * (x @ v))) @ x + v
    assert np.abs(slope).max() < 1e-9
    assert fit(x, signs, ridge=1e9, prior=prior) == pytest.approx(prior, abs=1e-5)
    doubled = fit(x, signs, np.full(200, 2.0), 2.0)  # twice of everything
    assert doubled == pytest.approx(v)
    assert losses(signs, x @ np.zeros(3)) == pytest.approx(np.full(200, np.log(2)))


def test_a_model_of_each_user_detects_more_where_tastes_differ_and_less_where_they_do_not() -> None:
    """[trend] global / personal .864 / .811 at tau 0, .742 / .873 at 1.2; reweighting within users moves neither."""
    for tau, shared, personal in ((0.0, 0.864, 0.811), (1.2, 0.742, 0.873)):
        found = pd.concat([DenoisingUsers(tau=tau).tables(seed)["detection"] for seed in range(3)])
        mean = found.groupby("method")["auroc"].mean()
        assert mean["global"] == pytest.approx(shared, abs=0.04)
        assert mean["personal"] == pytest.approx(personal, abs=0.04)
        assert mean["reweighted"] == pytest.approx(mean["global"], abs=0.01)


def test_only_the_upper_tail_is_weighed_down() -> None:
    loss = np.r_[np.zeros(50), np.ones(50), 10.0]
    weights = history_weights(loss, loss, 2.0)
    z = (10.0 - loss.mean()) / loss.std()
    assert (weights[:-1] == 1).all() and weights[-1] == pytest.approx(np.exp(-(z**2) / 2))
    assert (history_weights(np.ones(4), np.ones(4), 2.0) == 1).all()


def test_flipped_labels_are_detected_where_the_model_cannot_memorise_them() -> None:
    few, many = (BadPairs(dimensions=d, held_out=100).tables(1)["detection"].set_index("method") for d in (6, 300))
    assert few.loc["history", "auroc"] > 0.75 > many.loc["last", "auroc"]


def test_without_flips_there_is_nothing_to_detect() -> None:
    tables = BadPairs(dimensions=6, flips=0.0, held_out=1000).tables(1)
    assert len(tables["detection"]) == 0 and tables["accuracy"]["right"].min() > 0.9
