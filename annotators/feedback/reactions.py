"""Binary reactions to single outputs, most of which are never given.

    liked    ~ Bernoulli(σ((u - u₀) / T))
    observed ~ Bernoulli(σ(b + b_like [liked] + c |u - u₀| / T))

Who says nothing is ``observed`` false and ``liked`` missing: silence is no dislike. With ``by_like`` or ``by_strength``
not 0 reactions are missing not at random: the share of likes among those observed is biased, and weighting each by
1 / ``propensity`` makes up for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import expit

from annotators.feedback.answers import said_by
from annotators.feedback.utility import look
from farm.base import rng
from farm.base.bounds import Bounded, Positive
from farm.roles.protocols import Features


@dataclass(frozen=True)
class PersonReactor(Bounded):
    """A person who sometimes clicks on a thumb."""

    free: ClassVar[bool] = True
    features: Features
    name: str = "reactor"
    weights: dict[str, float] | None = None
    """default: the gold weights"""
    bias: dict[str, float] | None = None
    """added to these weights: what pleases this person beyond its worth, and a policy may learn to exploit"""
    threshold: float = 0.0
    """u₀: the utility of an output that is liked half of the time"""
    temperature: Positive = 1.0
    base: float = -1.0
    """b: log-odds of a reaction"""
    by_like: float = 0.5
    """b_like: the pleased say so more often (below 0: the annoyed do)"""
    by_strength: float = 0.3
    """c: clear cases are reacted to more often"""
    latent: float = 0.0
    """utility of one unit of latent quality, where no feature tells"""

    def react(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        seen = look(self.features, outputs)
        weights = dict(self.features.gold_weights if self.weights is None else self.weights)
        for term, more in (self.bias or {}).items():
            weights[term] = weights.get(term, 0.0) + more
        logit = (seen.utility(weights, self.latent) - self.threshold) / self.temperature
        liked = rng.uniform(seed, f"liked: {self.name}", seen.ids, replicate) < expit(logit)
        propensity = np.asarray(expit(self.base + self.by_like * liked + self.by_strength * np.abs(logit)))
        observed = rng.uniform(seed, f"reacts: {self.name}", seen.ids, replicate) < propensity
        said = np.where(observed, liked.astype(object), None)
        return said_by(
            self.name, outputs, seed, replicate, liked=said, observed=observed, propensity=propensity,
            status=np.where(observed, "ok", "unobserved"),
        )  # fmt: skip
