"""How noisy are these annotators? Flip rate, difficulty of items, goodness of fit of vote splits.

Two one-parameter models of a vote, both with the same average agreement but another shape:

* constant flips: every vote is wrong with probability p;
* difficulty: an item has a margin t ~ N(0, sigma^2), and a vote is right with probability sigmoid(|t|).

Which fits is decided by the histogram of splits (how many items had 5:0, 4:1, 3:2 ...), not by the agreement. Neither
model favours an output, so which of the two is called first is arbitrary, and 4:1 and 1:4 are one kind of split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from scipy.special import expit

from farm.base.arrays import Floats
from farm.statistics.result import Result
from farm.statistics.uncertainty import codes
from farm.votes.agreement import decisive


def agreement_from_flip(p: float, others: int = 1) -> float:
    """The agreement of one annotator with the majority of ``others`` when every vote is flipped with probability p.

    1v1: p^2 + (1-p)^2. 1v3: (1-p) m + p (1-m) with m = (1-p)^3 + 3 p (1-p)^2. An even split is one half.
    """
    k = np.arange(others + 1)
    chance = stats.binom.pmf(k, others, 1 - p)
    right = float(chance[2 * k > others].sum() + chance[2 * k == others].sum() / 2)
    return (1 - p) * right + p * (1 - right)


def flip_from_agreement(agreement: float, others: int = 1) -> float:
    """The flip rate that gives this agreement with the majority of ``others``; 1/2 at or below chance.

    .6566 (AlpacaEval's humans) is 0.262 as one against three and 0.220 as one against one: say which.
    """
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement {agreement} must lie between 0 and 1")
    if agreement <= 0.5:
        return 0.5
    if others == 1:
        return (1 - float(np.sqrt(2 * agreement - 1))) / 2
    return float(optimize.brentq(lambda p: agreement_from_flip(p, others) - agreement, 0.0, 0.5))


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_CERTAIN = 40.0
"""a margin at which a vote is right but for rounding"""
_FARTHEST = 9.0
"""standard deviations beyond which the normal has nothing but rounding"""


def _over_margins(of: Callable[[Floats], Floats], sigma: float) -> Floats:
    """The mean of of(p) [..., N] over p = sigmoid(|t|), t ~ N(0, sigma^2), from 0 to an infinite sigma.

    What differs from of(1) lies at margins below :data:`_CERTAIN`, and is integrated there alone: an integral over the
    whole normal would miss it where sigma is large.
    """
    margin = min(_CERTAIN, _FARTHEST * sigma)
    deviation = min(_FARTHEST, _CERTAIN / sigma) if sigma else _FARTHEST
    places = (_NODES + 1) / 2
    weights = deviation * _WEIGHTS * stats.norm.pdf(deviation * places)
    certain = of(np.ones(1))
    return np.asarray(certain[..., 0] + (of(expit(margin * places)) - certain) @ weights)


def split_chances(
    votes: int, *, sigma: float | None = None, flip: float = 0.0, of_votes: NDArray[np.int64] | None = None
) -> Floats:
    """P(k of ``votes`` for the first), k = 0 .. votes or those ``of_votes``, when neither output is favoured.

    With ``sigma``: margins N(0, sigma^2), and every vote flipped besides with probability ``flip``. Without: constant
    flips only.
    """
    k = np.arange(votes + 1) if of_votes is None else of_votes
    if sigma is None:
        return np.asarray((stats.binom.pmf(k, votes, flip) + stats.binom.pmf(k, votes, 1 - flip)) / 2)

    def of(p: Floats) -> Floats:
        right = p * (1 - flip) + (1 - p) * flip
        one_way = stats.binom.pmf(k[:, None], votes, right)
        other_way = one_way[::-1] if of_votes is None else stats.binom.pmf(votes - k[:, None], votes, right)
        return np.asarray(one_way + other_way) / 2

    return np.maximum(_over_margins(of, sigma), 0)


@dataclass(frozen=True)
class SplitFit(Result):
    """A noise model fitted to the histogram of vote splits."""

    model: str
    sigma: float
    """of the margins; infinite where no item is hard"""
    flip: float
    chi_square: float
    degrees: int
    p_value: float
    items: int
    votes: int
    observed: tuple[float, ...]
    expected: tuple[float, ...]


def fit_splits(histogram: ArrayLike, model: str, *, folded: bool = False) -> SplitFit:
    """Fit "flip" (one parameter), "difficulty" (one) or "difficulty and flip" (two) by maximum likelihood.

    Args:
        histogram: items with 0, 1 .. k votes of k for the first.
        folded: test k : n - k and n - k : k as one kind of split. The fit is the same; without it the chi-square tests
            besides that neither side wins more often, and so depends on which output of each item is called first.

    The Pearson chi-square has (cells - 1 - parameters) degrees of freedom; without any the p value is missing.
    """
    counts = np.asarray(histogram, dtype=np.float64)
    votes, n = len(counts) - 1, float(counts.sum())
    if votes < 2 or not n:
        raise ValueError("splits of at least two votes an item are needed")

    # Of many votes an item few splits are seen, and the likelihood asks for these alone.
    seen = np.flatnonzero(counts) if votes > _MANY else np.arange(votes + 1)

    def loss(flip: float, sigma: float | None = None) -> float:
        chances = split_chances(votes, sigma=sigma, flip=flip, of_votes=seen if votes > _MANY else None)
        return -float(counts[seen] @ np.log(np.maximum(chances, 1e-300)))

    if model == "flip":
        found = optimize.minimize_scalar(loss, bounds=(1e-6, 0.5), method="bounded")
        sigma, flip, parameters = float("nan"), float(found.x), 1
        chances = split_chances(votes, flip=flip)
    elif model == "difficulty":
        sigma, flip, parameters = _sigma(_least(lambda r: loss(0.0, _sigma(r)), 0, 1)), 0.0, 1
        chances = split_chances(votes, sigma=sigma)
    elif model == "difficulty and flip":

        def of(x: Floats) -> float:
            return loss(float(x[1]), _sigma(float(x[0]))) / n

        hard, wrong = fit_splits(counts, "difficulty").sigma, fit_splits(counts, "flip").flip
        place = 1.0 if np.isinf(hard) else hard / (1 + hard)
        # Each of the simpler models is an edge of this one, so that it fits no worse than the better of the two.
        starts = [np.array(x) for x in ((place, 0.0), (1.0, wrong), (place, 0.02), (0.95, wrong), (0.9, wrong / 2))]
        tries = [
            optimize.minimize(of, x, method="L-BFGS-B", bounds=((0, 1), (0, 0.5)), options=_CLOSE).x for x in starts
        ]
        best = min([*starts[:2], *tries], key=of)
        sigma, flip, parameters = _sigma(float(best[0])), float(best[1]), 2
        chances = split_chances(votes, sigma=sigma, flip=flip)
    else:
        raise ValueError(f"unknown noise model {model!r}")
    if folded:
        counts, chances = _folded(counts), _folded(chances)
    expected = n * chances
    possible = expected > 0
    chi = float((np.square(counts - expected)[possible] / expected[possible]).sum())
    degrees = len(counts) - 1 - parameters
    return SplitFit(
        model, sigma, flip, chi, degrees, float(stats.chi2.sf(chi, degrees)) if degrees > 0 else float("nan"),
        int(n), votes, tuple(counts / n), tuple(chances),
    )  # fmt: skip


_MANY = 50
"""votes an item, beyond which not every split is computed at each step of a fit"""
_CLOSE = {"ftol": 1e-14, "gtol": 1e-9}


def _sigma(place: float) -> float:
    """A sigma by its place between 0 and 1, which is infinite."""
    return place / (1 - place) if place < 1 else float("inf")


def _least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one number is least: near the best of a grid, or at an end."""
    grid = np.linspace(low, high, 33)
    best = int(np.argmin([loss(float(x)) for x in grid]))
    around = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 32)])
    found = optimize.minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-9})
    return min(float(grid[best]), float(found.x), key=loss)


def _folded(splits: Floats) -> Floats:
    """Splits k : n - k with their mirror images, [n // 2 + 1]."""
    size = len(splits) // 2
    both = splits + splits[::-1]
    return np.append(both[:size], splits[size]) if len(splits) % 2 else both[:size]


def split_histogram(item: ArrayLike, first: ArrayLike, votes: int, *, without_ties: bool = True) -> NDArray[np.int64]:
    """Items with 0 .. ``votes`` votes for the first, of those with exactly that many decisive votes.

    ``without_ties`` leaves out items that have any tie, as a tie says that the item is not clear.
    """
    x = np.asarray(first, dtype=np.float64)
    if without_ties:
        row, items = codes(np.asarray(item))
        tied = np.bincount(row, weights=(x == 0.5).astype(np.float64), minlength=items) > 0
        item, x = np.asarray(item)[~tied[row]], x[~tied[row]]
    _, _, ones, total = decisive(item, x)
    return np.bincount(ones[total == votes].astype(np.int64), minlength=votes + 1)


@dataclass(frozen=True)
class NoiseEstimate(Result):
    """What the votes say of their noise, for the configuration of a simulator."""

    fits: tuple[SplitFit, ...]
    one_against_one: float
    flip_one_against_one: float
    items: int

    def table(self) -> Any:
        import pandas as pd

        return pd.DataFrame([{k: v for k, v in f.to_dict().items() if not isinstance(v, list)} for f in self.fits])


def estimate_noise(item: ArrayLike, first: ArrayLike) -> NoiseEstimate:
    """Flip rate, difficulty and both, fitted to the commonest number of decisive votes an item (three or more).

    ``first`` must tell of one order of each item's outputs; which of the two changes nothing.
    """
    _, _, ones, total = decisive(item, first)
    pairs = total * (total - 1) / 2
    same = ones * (ones - 1) / 2 + (total - ones) * (total - ones - 1) / 2
    agreement = float(same.sum() / pairs.sum()) if pairs.sum() else float("nan")
    sizes = np.bincount(total[total >= 3].astype(int))
    fits: tuple[SplitFit, ...] = ()
    if sizes.sum():
        votes = int(np.argmax(sizes))
        histogram = split_histogram(item, first, votes)
        if histogram.sum():
            models = ("flip", "difficulty") + (("difficulty and flip",) if votes > 3 else ())
            fits = tuple(fit_splits(histogram, m, folded=True) for m in models)
    flip = flip_from_agreement(agreement) if agreement == agreement else float("nan")
    return NoiseEstimate(fits, agreement, flip, len(total))
