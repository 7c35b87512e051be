"""Sets of outputs: how good they are on average, and how unlike each other.

    R(S) = mean of u(y) over S + diversity x D(S) + noise N(0, s²)
    D(S) = entropy, in nats, of the eigenvalues of K / n,    K_ij = exp(-|φ(y_i) - φ(y_j)|² / (2 width²))

exp D is the Vendi score (arXiv 2210.02410): D is 0 where all outputs are alike, ln n where each is unlike all others.
With width 0 outputs are alike where their features φ are equal, and D is the entropy of these classes. A reward of a
whole set, as DRAGON's (arXiv 2504.15217); the order of the outputs does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import xlogy

from annotators.feedback.answers import said_by
from annotators.feedback.utility import look_within
from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, NotNegative, Number
from farm.feedback.sets import KIND
from farm.roles.protocols import Features


@dataclass(frozen=True)
class SetAppraiser(Bounded):
    """Who sees all outputs to an instruction at once."""

    free: ClassVar[bool] = True
    features: Features
    name: str = "appraiser"
    weights: dict[str, float] | None = None
    """of u; default: the gold weights, and with `{}` diversity alone counts"""
    by: list[str] | None = None
    """φ: features by which outputs are alike or not; default: those that the gold utility has"""
    diversity: Number = 1.0
    width: NotNegative = 1.0
    noise: NotNegative = 0.0

    def appraise(self, groups: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        seen, size = look_within(self.features, groups)
        worth = seen.utility(self.features.gold_weights if self.weights is None else self.weights)
        looks = seen.features(list(self.features.gold_weights) if self.by is None else self.by)
        value = np.zeros(len(groups))
        for i, end in enumerate(np.cumsum(size)):
            of = slice(end - size[i], end)
            value[i] = worth[of].mean() + self.diversity * spread(looks[of], self.width)
        if self.noise:
            value += self.noise * rng.normal(seed, f"set: {self.name}", KIND.unit(groups), replicate)
        return said_by(self.name, groups, seed, replicate, value=value)


def spread(looks: Floats, width: float) -> float:
    """D of outputs with these features [n, d], in nats."""
    with np.errstate(over="ignore"):  # infinitely far apart in a very small width
        apart = np.square((looks[:, None] - looks[None]) / (width or 1.0)).sum(-1)
    alike = np.exp(-apart / 2) if width else (apart == 0).astype(np.float64)
    shares = np.linalg.eigvalsh(alike / len(looks)).clip(0, 1)
    return float(-xlogy(shares, shares).sum())
