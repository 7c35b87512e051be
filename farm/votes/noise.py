"""How noisy are these annotators? Flip rate, difficulty of items, goodness of fit of vote splits.

Two one-parameter models of a vote, both with the same average agreement but another shape:

* constant flips: every vote is wrong with probability p;
* difficulty: an item has a margin t ~ N(0, sigma^2), and a vote is right with probability sigmoid(|t|).

Which fits is decided by the histogram of splits (how many items had 5:0, 4:1, 3:2 ...), not by the agreement. Neither
model favours an output, so which of the two is called first is arbitrary, and 4:1 and 1:4 are one kind of split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from scipy.special import expit

from farm.statistics.result import Result
from farm.statistics.uncertainty import codes
from farm.votes.agreement import decisive

Floats = NDArray[np.float64]


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


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(81)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def agreement_from_difficulty(sigma: float, others: int = 1) -> float:
    """The agreement of one annotator with the majority of ``others`` when margins are N(0, sigma^2)."""
    p = expit(sigma * _NODES)
    k = np.arange(others + 1)[:, None]
    chance = stats.binom.pmf(k, others, p[None, :])
    majority = np.where(2 * k > others, 1.0, np.where(2 * k == others, 0.5, 0.0))
    m = (chance * majority).sum(axis=0)
    return float(_WEIGHTS @ (p * m + (1 - p) * (1 - m)))


def difficulty_from_agreement(agreement: float, others: int = 1) -> float:
    """The sigma of the margins that gives this agreement: .6566 as one against three is 1.31."""
    if agreement <= 0.5:
        return 0.0
    return float(optimize.brentq(lambda s: agreement_from_difficulty(s, others) - agreement, 0.0, 50.0))


def split_chances(votes: int, *, sigma: float | None = None, flip: float = 0.0) -> Floats:
    """P(k of ``votes`` for the first), k = 0 .. votes, when neither output is favoured.

    With ``sigma``: margins N(0, sigma^2), and every vote flipped besides with probability ``flip``. Without: constant
    flips only.
    """
    k = np.arange(votes + 1)
    if sigma is None:
        return np.asarray((stats.binom.pmf(k, votes, flip) + stats.binom.pmf(k, votes, 1 - flip)) / 2)
    p = expit(sigma * _NODES)
    p = p * (1 - flip) + (1 - p) * flip
    return np.asarray(_WEIGHTS @ stats.binom.pmf(k[None, :], votes, p[:, None]))


@dataclass(frozen=True)
class SplitFit(Result):
    """A noise model fitted to the histogram of vote splits."""

    model: str
    sigma: float
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

    def loss(chances: Floats) -> float:
        return -float(counts @ np.log(np.maximum(chances, 1e-300)))

    if model == "flip":
        found = optimize.minimize_scalar(
            lambda p: loss(split_chances(votes, flip=p)), bounds=(1e-6, 0.5), method="bounded"
        )
        sigma, flip, parameters = float("nan"), float(found.x), 1
        chances = split_chances(votes, flip=flip)
    elif model == "difficulty":
        found = optimize.minimize_scalar(
            lambda s: loss(split_chances(votes, sigma=s)), bounds=(1e-3, 30), method="bounded"
        )
        sigma, flip, parameters = float(found.x), 0.0, 1
        chances = split_chances(votes, sigma=sigma)
    elif model == "difficulty and flip":
        start = max(float(fit_splits(counts, "difficulty").sigma), 0.1)  # either of the simpler models may be nearer
        starts = ((np.log(start), -6.0), (np.log(start), -3.0), (np.log(20.0), 0.0), (np.log(20.0), -3.0))
        tries = [
            optimize.minimize(
                lambda x: loss(split_chances(votes, sigma=float(np.exp(x[0])), flip=float(expit(x[1])) / 2)),
                x0=x0, method="L-BFGS-B", bounds=((np.log(1e-3), np.log(30)), (-14, 10)),
                options={"ftol": 1e-14, "gtol": 1e-8},
            )
            for x0 in starts
        ]  # fmt: skip
        best = min(tries, key=lambda found: float(found.fun))
        sigma, flip, parameters = float(np.exp(best.x[0])), float(expit(best.x[1])) / 2, 2
        chances = split_chances(votes, sigma=sigma, flip=flip)
    else:
        raise ValueError(f"unknown noise model {model!r}")
    if folded:
        counts, chances = _folded(counts), _folded(chances)
    expected = n * chances
    chi = float((np.square(counts - expected) / expected).sum())
    degrees = len(counts) - 1 - parameters
    return SplitFit(
        model, sigma, flip, chi, degrees, float(stats.chi2.sf(chi, degrees)) if degrees > 0 else float("nan"),
        int(n), votes, tuple(counts / n), tuple(chances),
    )  # fmt: skip


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
