"""Over-optimization where the optimum of every reward is known: three acceptance tests and a negative control.

Feature world: 16 independent features, standard normal under the reference; the gold utility is concave in each (too
much of a thing hurts), the reward model linear in features and their squares and fitted to N pairs. The optimum at
strength beta, pi_ref exp(r / beta), is a product over features, so gold, proxy and KL are sums over a grid.
Where a few labels are flipped, a wrongly curved feature is soon found and pushed to its end.

Control: responses with independent utilities, nothing to extrapolate. Flips lower what can be had; gold hardly falls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from farm.base import rng
from reference_methods.parts.losses import bradley_terry

Array = NDArray[np.float64]
FEATURES, CURVATURE = 16, 0.2
GRID = np.linspace(-8, 8, 321)
STRENGTHS = np.geomspace(20, 0.05, 50)


def log_normalised(values: Array) -> Array:
    return values - np.logaddexp.reduce(values, axis=-1, keepdims=True)


def fitted(margins: Callable[[torch.Tensor], torch.Tensor], size: int, first: Array, ridge: float) -> Array:
    """The weights of a reward, [size], by maximum likelihood of the labels; ``margins`` are linear in them."""
    label = torch.from_numpy(first)
    weights = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = bradley_terry(margins(weights), label).sum() + 0.5 * ridge * weights.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach().numpy()


def labels(margins: Array, flips: float, generator: np.random.Generator) -> Array:
    p = (1 - 2 * flips) / (1 + np.exp(-margins)) + flips
    return (generator.random(len(margins)) < p).astype(float)


@cache
def in_features(pairs: int, flips: float) -> tuple[Array, Array, Array]:
    """Gold, KL and proxy at every strength of the tilt, each the mean over seeds, [strengths]."""
    start = log_normalised(-0.5 * GRID**2)
    curves = []
    for seed in range(20):  # drawn as the known answers were
        generator = np.random.default_rng(seed)
        slope = 0.4 * generator.normal(size=FEATURES)
        texts = generator.normal(size=(2, pairs, FEATURES))
        gold = texts @ slope - 0.5 * CURVATURE * (texts**2).sum(-1)
        first = generator.random(pairs) < 1 / (1 + np.exp(gold[1] - gold[0]))
        found = (first != (generator.random(pairs) < flips)).astype(float)
        apart = torch.from_numpy(np.concatenate([texts[0] - texts[1], texts[0] ** 2 - texts[1] ** 2], axis=1))
        linear, square = np.split(fitted(apart.matmul, 2 * FEATURES, found, 1e-2), 2)
        proxy = linear[:, None] * GRID + square[:, None] * GRID**2  # [features, grid]
        tilted = log_normalised(start + proxy / STRENGTHS[:, None, None])  # [strengths, features, grid]
        p, worth = np.exp(tilted), slope[:, None] * GRID - 0.5 * CURVATURE * GRID**2
        curves.append([(p * worth).sum((1, 2)), (p * (tilted - start)).sum((1, 2)), (p * proxy).sum((1, 2))])
    gold, divergence, reward = np.mean(curves, axis=0)
    return gold, divergence, reward


@pytest.mark.parametrize(
    ("flips", "start", "peak", "at", "end"),
    [(0.0, -1.44, 5.00, 28.7, 4.43), (0.1, -1.51, 4.06, 22.1, 2.89), (0.25, -1.55, 2.03, 11.5, -2.27)],
)
def test_the_known_curves_of_a_thousand_labels(flips: float, start: float, peak: float, at: float, end: float) -> None:
    """[num] gold at the weakest tilt, at its peak and at the strongest, and the KL of the peak."""
    gold, divergence, _ = in_features(pairs=1000, flips=flips)
    assert [gold[0], gold.max(), gold[-1]] == pytest.approx([start, peak, end], abs=0.015)
    assert divergence[gold.argmax()] == pytest.approx(at, abs=0.15)


def test_with_flips_and_few_labels_gold_peaks_and_falls_below_half_its_peak():
    gold, divergence, _ = in_features(pairs=1000, flips=0.25)
    peak = int(gold.argmax())
    assert 0 < peak < len(gold) - 1
    assert gold[-1] < 0.5 * gold[peak]
    assert 5 < divergence[peak] < 25


def test_without_flips_gold_falls_by_less_than_15_percent():
    gold, _, _ = in_features(pairs=1000, flips=0.0)
    assert gold[-1] > 0.85 * gold.max()


def test_with_ten_times_the_labels_flips_do_no_harm():
    gold, _, _ = in_features(pairs=10_000, flips=0.25)
    assert gold[-1] > 0.98 * gold.max()


def test_the_proxy_rises_all_the_way():
    for pairs, flips in ((1000, 0.25), (1000, 0.0), (10_000, 0.25)):
        _, divergence, reward = in_features(pairs=pairs, flips=flips)
        assert (np.diff(reward) > 0).all() and (np.diff(divergence) > 0).all()


def _apart(scores: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return scores[one] - scores[other]


def in_a_table(flips: float, responses: int = 300, pairs: int = 1500) -> Array:
    """Gold at every strength where nothing ties one response to another, the mean over seeds, [strengths]."""
    reference = log_normalised(-1.1 * np.log(np.arange(1, responses + 1)))
    strengths = np.geomspace(30, 0.02, 40)
    curves = []
    for seed in range(30):
        generator = rng.generator(seed, "table world")
        utility = generator.normal(size=responses)
        shown = generator.choice(responses, (2, pairs), p=np.exp(reference))
        shown = shown[:, shown[0] != shown[1]]
        found = labels((utility[shown[0]] - utility[shown[1]]) / 0.25, flips, generator)
        one, other = torch.from_numpy(shown)
        scores = fitted(partial(_apart, one=one, other=other), responses, found, 0.3)
        curves.append(np.exp(log_normalised(reference + scores / strengths[:, None])) @ utility)
    return np.mean(curves, axis=0)


def test_control_independent_utilities_show_a_lower_ceiling_and_no_fall():
    clean, noisy = in_a_table(0.0), in_a_table(0.25)
    assert noisy.max() < 0.75 * clean.max()
    for gold in (clean, noisy):
        assert gold.max() - gold[-1] < 0.15
