"""Ratings on a scale of levels, by a simulated person.

    s = clip(round(μ + c (u - u₀) + ξ), 1, L),   ξ ~ N(0, s_r²) for each response (and replicate), not for each pair

u is the utility by the weights with which this person *rates*, which need not be those by which people rank: ratings
and rankings of the same pairs disagree on more than half of them, for people and models (arXiv 2308.15812). With equal
weights and without noise the disagreement is ties alone; it grows with the angle between the two sets of weights
(:func:`inconsistency`). As an annotator of pairs a rater prefers the output rated higher; equal ratings are a tie.

Ratings of aspects or one overall rating (UltraFeedback, arXiv 2310.01377): an overall rating has a halo where its
weights have features that the truth has not, and some of the lowest may have been written down as the highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from annotators.feedback.answers import implied, said_by
from annotators.feedback.utility import look
from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, NotNegative, Several, Share
from farm.feedback.designs import singles
from farm.roles.protocols import Features
from farm.tables.records import annotation_table, unannotated


@dataclass(frozen=True)
class PersonRater(Bounded):
    """A person who rates single outputs.

    Raises:
        ValueError: for a scale with fewer than two levels, a negative noise, or false top ratings of aspects.
    """

    free: ClassVar[bool] = True
    features: Features
    name: str = "rater"
    weights: dict[str, float] | None = None
    """default: the gold weights"""
    aspects: dict[str, dict[str, float]] | None = None
    """aspect -> weights: each is rated by itself, and the score is their mean"""
    levels: Several = 7
    middle: float = 4.0
    """μ: the rating of an output of utility ``centre``"""
    centre: float = 0.0
    """u₀"""
    slope: float = 1.0
    """c: levels a unit of utility"""
    noise: NotNegative = 0.7
    """s_r, in levels"""
    latent: float = 0.0
    """utility of one unit of latent quality, where no feature tells"""
    false_tops: Share = 0.0
    """how often the lowest overall rating is written down as the highest one, as thousands of UltraFeedback's were"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.false_tops and self.aspects:
            raise ValueError(
                "`false_tops` are of overall ratings, and a mean of `aspects` has none; leave one of them out"
            )

    def rate(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        seen = look(self.features, outputs)
        if not self.aspects:
            weights = self.features.gold_weights if self.weights is None else self.weights
            score = self._score(seen.utility(weights, self.latent), seen.ids, "overall", seed, replicate)
            if self.false_tops:
                false = rng.uniform(seed, f"false top: {self.name}", seen.ids, replicate) < self.false_tops
                score = np.where(false & (score == 1), self.levels, score)
            return said_by(self.name, outputs, seed, replicate, score=score)
        rated = {
            aspect: self._score(seen.utility(weights, self.latent), seen.ids, aspect, seed, replicate)
            for aspect, weights in self.aspects.items()
        }
        score = np.mean(list(rated.values()), axis=0)
        return said_by(self.name, outputs, seed, replicate, score=score, **rated)

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """The preferences that the ratings imply, with both ratings as ``score_1`` and ``score_2``."""
        pairs = unannotated(pairs)
        score = self.rate(singles(pairs), seed=seed, replicate=replicate)["score"]
        preference, n = implied(score, len(pairs)), len(pairs)
        table = annotation_table(pairs, self.name, preference, np.full(n, np.nan), seed=seed, replicate=replicate)
        return table.assign(score_1=score.to_numpy()[:n], score_2=score.to_numpy()[n:])

    def _score(self, utility: Floats, ids: rng.Ids, aspect: str, seed: int, replicate: int) -> Floats:
        noise = self.noise * rng.normal(seed, f"rating: {self.name}: {aspect}", ids, replicate) if self.noise else 0.0
        exact = self.middle + self.slope * (utility - self.centre) + noise
        return np.asarray(np.clip(np.rint(exact), 1, self.levels))


def inconsistency(rated: pd.DataFrame, ranked: pd.DataFrame) -> float:
    """Share of pairs on which two annotation tables of the same rows say different things; a tie is a third answer."""
    one, two = rated["preference"].to_numpy(np.float64), ranked["preference"].to_numpy(np.float64)
    both = ~np.isnan(one) & ~np.isnan(two)
    return float(np.mean(np.sign(one[both] - 1.5) != np.sign(two[both] - 1.5))) if both.any() else float("nan")
