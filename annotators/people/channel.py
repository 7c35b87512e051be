"""From a preference logit to a label: the link, ties, noise and the draw. Pure functions on arrays of shape [n].

A logit is positive when the first output of a pair is preferred. It becomes the probabilities of three outcomes:

    link        P0 = σ(ℓ)                        logistic: Bradley and Terry, Boltzmann choice
                P0 = Φ(ℓ/√2)                     probit: Thurstone's case V
    ties        band:       a tie where |ℓ| < δ
                rao-kupper: P(1) = F(ℓ - η), P(2) = F(-ℓ - η), a tie otherwise     (θ = exp η of Rao and Kupper, 1967)
                davidson:   a tie ∝ ν √(P0 (1 - P0))                               (Davidson, 1970)
    flip ε      the answer is turned round with probability ε
    lapse λ     the answer is random, and never a tie, with probability λ; without ties the same as a flip of λ/2

Every function treats the two outputs alike: exchanging them (ℓ → -ℓ) exchanges the outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit, ndtr

from farm.base.arrays import Floats

Link = Literal["logistic", "probit"]
TieModel = Literal["band", "rao-kupper", "davidson"]


@dataclass(frozen=True)
class Outcomes:
    """The probabilities of the answers to n pairs, float64 [n] each; they sum to 1."""

    first: Floats
    second: Floats
    tie: Floats

    @property
    def p_first(self) -> Floats:
        """The probability that the first is preferred, a tie counted as one half."""
        return self.first + 0.5 * self.tie


def linked(logit: Floats, link: Link = "logistic") -> Floats:
    """The probability of preferring the first, before ties and noise."""
    return np.asarray(expit(logit) if link == "logistic" else ndtr(logit / np.sqrt(2.0)))


def outcomes(
    logit: Floats, link: Link = "logistic", ties: TieModel = "band", tie_width: float | Floats = 0.0
) -> Outcomes:
    """The probabilities of first, second and tie, before noise.

    ``tie_width`` is δ of the band, η = ln θ of Rao and Kupper, or ν of Davidson, one for all or [n]; 0 is no ties
    under all three.
    """
    if ties == "rao-kupper":
        first, second = linked(logit - tie_width, link), linked(-logit - tie_width, link)
        tie = np.maximum(1.0 - (first + second), 0.0) if np.any(tie_width) else np.zeros_like(first)
        return Outcomes(first, second, tie)
    first, second = linked(logit, link), linked(-logit, link)
    if ties == "davidson":
        tie = tie_width * np.sqrt(first * second)
        total = 1.0 + tie
        return Outcomes(first / total, second / total, tie / total)
    tied = np.abs(logit) < tie_width
    return Outcomes(np.where(tied, 0.0, first), np.where(tied, 0.0, second), tied.astype(np.float64))


def noisy(clean: Outcomes, flip: float | Floats = 0.0, lapse: float | Floats = 0.0) -> Outcomes:
    """Outcomes after flips with probability ``flip`` and random answers with probability ``lapse``; ties never flip."""
    first = (1.0 - flip) * clean.first + flip * clean.second
    second = (1.0 - flip) * clean.second + flip * clean.first
    return Outcomes((1.0 - lapse) * first + lapse / 2, (1.0 - lapse) * second + lapse / 2, (1.0 - lapse) * clean.tie)


def draw(chances: Outcomes, uniform: Floats) -> Floats:
    """One answer a pair from one uniform number a pair: 1 (first), 1.5 (tie) or 2 (second)."""
    return np.where(uniform < chances.first, 1.0, np.where(uniform < chances.first + chances.tie, 1.5, 2.0))


def decide(chances: Outcomes) -> Floats:
    """The likeliest answer, without a draw; 1.5 where first and second are equally likely, or a tie is likelier."""
    best = np.maximum(chances.first, chances.second)
    tied = (chances.tie > best) | (chances.first == chances.second)
    return np.where(tied, 1.5, np.where(chances.first > chances.second, 1.0, 2.0))
