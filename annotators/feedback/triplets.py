"""Triplets: which of two outputs is nearer to a third, by the features of the texts.

    d(y, a) = √ Σ_k w_k (φ_k(y) - φ_k(a))²,    P(y1 is nearer) = σ((d(y2, a) - d(y1, a)) / T)

The draw is keyed by the anchor and the unordered two, and made in a canonical order of them, so that exchanging the two
exchanges the answer. Equal outputs are a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import expit

from annotators.feedback.answers import said_by
from annotators.feedback.utility import look
from annotators.people import channel
from farm.base import rng
from farm.base.bounds import Bounded, NotNegative
from farm.roles.protocols import Features
from farm.tables import turns
from farm.tables.records import PairIds


@dataclass(frozen=True)
class PersonMatcher(Bounded):
    """A person who sees which texts are alike."""

    free: ClassVar[bool] = True
    features: Features
    name: str = "matcher"
    weights: dict[str, NotNegative] | None = None
    """what each feature counts; default: 1 for each that the gold utility has"""
    temperature: NotNegative = 0.5
    """distance that makes one unit of logit; 0 is without noise"""

    def match(self, triplets: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        ids = PairIds(triplets)
        columns = ("anchor", "output_1", "output_2")
        anchor, first, second = (self._features(triplets, c) for c in columns)
        near = [np.sqrt(((of - anchor) ** 2).sum(axis=1)) for of in (first, second)]
        further = near[1] - near[0]
        if self.temperature:
            p_first = expit(further / self.temperature)
        else:
            p_first = 0.5 + 0.5 * np.sign(further)
        canonical = np.where(ids.swapped, 1.0 - p_first, p_first)
        chances = channel.Outcomes(canonical, 1.0 - canonical, np.zeros(len(triplets)))
        key = rng.combine(ids.pair, rng.text_ids(triplets["anchor"]))
        uniform = rng.uniform(seed, f"nearer: {self.name}", key, replicate)
        label = channel.draw(chances, uniform) if self.temperature else channel.decide(chances)
        label = np.where(ids.swapped, 3.0 - label, label)
        nearer = np.where(ids.identical, 1.5, label)
        return said_by(
            self.name, triplets, seed, replicate, nearer=nearer, p_first=np.where(ids.identical, 0.5, p_first)
        )

    def _features(self, triplets: pd.DataFrame, column: str) -> np.ndarray:
        """√w φ of the texts in a column, [n, features]."""
        texts = triplets[turns.kept(triplets)].assign(output=triplets[column])
        weights = dict.fromkeys(self.features.gold_weights, 1.0) if self.weights is None else self.weights
        scale = np.sqrt(np.array(list(weights.values()), dtype=np.float64))
        return np.asarray(look(self.features, texts).features(list(weights)) * scale)
