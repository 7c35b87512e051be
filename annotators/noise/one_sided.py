"""Labels that are seen only where one accepts: what became of the rejected nobody finds out.

    accepted    where s + N(0, noise²) > threshold, and of all others a share ``explore``, by a coin
    propensity  e = explore + (1 - explore) Φ((s - threshold) / noise)

s = Σ w φ(y) is what one makes of an output before its label is seen. What is not accepted has the status "unobserved"
and costs nothing. A mean of what is seen is too good: of qualities N(0, 1) that decide with a noise of 1 it is .564
where the truth is 0; weighted by 1 / e it is right, as long as everything is explored a little (selective labels;
one-sided feedback, arXiv 2206.04475).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.special import ndtr

from annotators.feedback.answers import said_by
from annotators.feedback.utility import look
from farm.asking.givers import name_of, require_wraps
from farm.base import rng
from farm.base.bounds import Number, Positive, Share, check
from farm.feedback.kind import kind
from farm.roles.givers import Giver
from farm.roles.protocols import Features
from farm.tables.records import merged


@dataclass(frozen=True)
class OneSided:
    """Asks its annotator about what is accepted."""

    wraps: ClassVar[tuple[str, ...]] = ("ratings", "checks")
    annotator: Giver
    features: Features
    weights: dict[str, float] | None = None
    """w; default: the gold weights"""
    threshold: Number = 0.0
    noise: Positive = 1.0
    explore: Share = 0.05

    def __post_init__(self) -> None:
        check(self)
        require_wraps(self, self.annotator)

    @property
    def name(self) -> str:
        return f"one-sided {name_of(self.annotator)}"

    def rate(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self._seen("ratings", outputs, seed, replicate)

    def check(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self._seen("checks", outputs, seed, replicate)

    def _seen(self, of: str, outputs: pd.DataFrame, seed: int, replicate: int) -> pd.DataFrame:
        found, feedback = look(self.features, outputs), kind(of)
        lead = found.utility(self.features.gold_weights if self.weights is None else self.weights) - self.threshold
        noise, coin = (
            rng.normal(seed, "accepted", found.ids, replicate),
            rng.uniform(seed, "explored", found.ids, replicate),
        )
        accepted = (lead + self.noise * noise > 0) | (coin < self.explore)
        seen, rest = np.flatnonzero(accepted), np.flatnonzero(~accepted)
        giver: Any = self.annotator
        asked = getattr(giver, feedback.verb)(outputs.iloc[seen], seed=seed, replicate=replicate)
        nothing = np.nan if of == "ratings" else None
        unseen: dict[str, Any] = {feedback.answer: nothing, "status": "unobserved"}
        left = said_by(name_of(giver), outputs.iloc[rest], seed, replicate, **unseen)
        propensity = self.explore + (1 - self.explore) * ndtr(lead / self.noise)
        return merged(outputs, [(seen, asked), (rest, left)]).assign(propensity=propensity)
