"""Rankings of several outputs to one instruction: Plackett and Luce, drawn by Gumbel noise.

Ordering by u / T + g with independent standard Gumbel g gives the ranking best first with the probability
Π exp(u_i / T) / Σ_{not yet ranked} exp(u_j / T); of two outputs it is the logistic choice of annotators of pairs. The
noise belongs to (person, output, replicate), so an output more or less in a list leaves the order of the others alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from annotators.feedback.answers import said_by
from annotators.feedback.utility import look_within
from farm.base import rng
from farm.base.bounds import Bounded, NotNegative
from farm.roles.protocols import Features


@dataclass(frozen=True)
class PersonRanker(Bounded):
    """A person who ranks; ``temperature`` 0 is without noise, equal outputs in the order given."""

    free: ClassVar[bool] = True
    features: Features
    name: str = "ranker"
    weights: dict[str, float] | None = None
    """default: the gold weights"""
    temperature: NotNegative = 1.0
    latent: float = 0.0
    """utility of one unit of latent quality, where no feature tells"""

    def rank(self, groups: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        seen, size = look_within(self.features, groups)
        weights = self.features.gold_weights if self.weights is None else self.weights
        value = seen.utility(weights, self.latent)
        if self.temperature:
            uniform = rng.uniform(seed, f"ranking: {self.name}", seen.ids, replicate)
            value = value / self.temperature - np.log(-np.log(uniform))
        parts = np.split(value, np.cumsum(size)[:-1])[: len(groups)]
        ranking = pd.Series([np.argsort(-part, kind="stable").tolist() for part in parts], groups.index, dtype=object)
        return said_by(self.name, groups, seed, replicate, ranking=ranking)
