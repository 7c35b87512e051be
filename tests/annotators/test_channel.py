"""The channel: links, ties, noise and the draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from annotators.people.channel import decide, draw, linked, noisy, outcomes

logits = arrays(np.float64, st.integers(1, 20), elements=st.floats(-30, 30))
rates = st.floats(0, 1)
ties = st.sampled_from(["band", "rao-kupper", "davidson"])
links = st.sampled_from(["logistic", "probit"])


@given(logits, links, ties, st.floats(0, 3), rates, rates)
def test_outcomes_are_probabilities_and_treat_the_sides_alike(logit, link, model, width, flip, lapse):
    one = noisy(outcomes(logit, link, model, width), flip, lapse)
    for part in (one.first, one.second, one.tie):
        assert ((part >= 0) & (part <= 1)).all()
    np.testing.assert_allclose(one.first + one.second + one.tie, 1, atol=1e-12)
    other = noisy(outcomes(-logit, link, model, width), flip, lapse)
    np.testing.assert_array_equal(one.first, other.second)
    np.testing.assert_array_equal(one.tie, other.tie)


@given(logits, links, ties)
def test_no_tie_width_is_no_tie_model(logit, link, model):
    """θ = 1 and ν = 0 are Bradley-Terry."""
    chances = outcomes(logit, link, model, 0.0)
    np.testing.assert_array_equal(chances.tie, 0)
    np.testing.assert_allclose(chances.first, linked(logit, link), rtol=1e-12)


def test_rao_kupper_and_davidson_formulas():
    p1, p2, theta, nu = 0.7, 0.3, 1.8, 0.6
    logit = np.array([np.log(p1 / p2)])
    rao_kupper = outcomes(logit, ties="rao-kupper", tie_width=np.log(theta))
    assert rao_kupper.first[0] == pytest.approx(p1 / (p1 + theta * p2))
    expected = (theta**2 - 1) * p1 * p2 / ((p1 + theta * p2) * (p2 + theta * p1))
    assert rao_kupper.tie[0] == pytest.approx(expected)
    davidson = outcomes(logit, ties="davidson", tie_width=nu)
    assert davidson.tie[0] / davidson.first[0] == pytest.approx(nu * np.sqrt(p1 * p2) / p1)


@given(logits, rates)
def test_a_lapse_is_a_flip_of_half_its_rate(logit, lapse):
    clean = outcomes(logit)
    np.testing.assert_allclose(noisy(clean, lapse=lapse).first, noisy(clean, flip=lapse / 2).first, atol=1e-12)


def test_probit_slope_at_zero():
    """Φ(Δu / (√2 s)) has slope 1 / (2 s √π) at 0."""
    s, step = 0.7, 1e-6
    slope = (linked(np.array([step / s]), "probit") - linked(np.array([-step / s]), "probit")) / (2 * step)
    assert slope[0] == pytest.approx(1 / (2 * s * np.sqrt(np.pi)), rel=1e-6)


@pytest.mark.parametrize("flip", [0.0, 0.1, 0.25, 0.4])
def test_information_of_a_pair_under_flips(flip):
    """At equal utilities a flip of ε leaves (1 - 2ε)² of a label's Fisher information: a quarter for ε = .25."""

    def information(rate: float) -> float:
        low, high = (noisy(outcomes(np.array([d])), flip=rate).first[0] for d in (-1e-5, 1e-5))
        return ((high - low) / 2e-5) ** 2 / 0.25

    assert information(flip) / information(0.0) == pytest.approx((1 - 2 * flip) ** 2, rel=1e-6)


def test_labels_follow_the_probabilities():
    n = 200_000
    chances = noisy(outcomes(np.full(n, 0.8), ties="davidson", tie_width=0.5), flip=0.1)
    labels = draw(chances, np.random.Generator(np.random.Philox(3)).random(n))
    for label, expected in ((1.0, chances.first[0]), (1.5, chances.tie[0]), (2.0, chances.second[0])):
        assert np.mean(labels == label) == pytest.approx(expected, abs=4 * np.sqrt(0.25 / n))


def test_deciding_is_the_likeliest_answer():
    labels = decide(outcomes(np.array([-2.0, -0.1, 0.0, 0.1, 2.0]), tie_width=0.5))
    np.testing.assert_array_equal(labels, [2.0, 1.5, 1.5, 1.5, 1.0])
    assert decide(outcomes(np.zeros(1)))[0] == 1.5


def test_repeated_answers_agree_as_often_as_the_logit_says():
    """Two answers to the same question agree with probability σ² + (1 - σ)²."""
    generator, n = np.random.Generator(np.random.Philox(5)), 100_000
    for logit in (0.0, 1.0, 2.5):
        one, two = (draw(outcomes(np.full(n, logit)), generator.random(n)) for _ in range(2))
        p = expit(logit)
        assert np.mean(one == two) == pytest.approx(p**2 + (1 - p) ** 2, abs=4 * np.sqrt(0.25 / n))
