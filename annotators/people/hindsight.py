"""Foresight and hindsight (RLHS, arXiv 2501.08617): judging what an answer promises, or what came of it.

    U = (1 - λ) U_fore + λ U_hind

In foresight an evaluator weighs what the text makes it expect, in hindsight what it turned out to be worth; the two are
two sets of weights of the same features (a claim counts for what it says, or for whether it was true). Between the two,
either every judgement is a blend (``blend``), or a share ``hindsight`` of the pairs is judged after the outcome was
seen, the others before (partial hindsight).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from annotators.people.logit import LogitAnnotator
from farm.base import rng
from farm.base.bounds import Positive, Share, check
from farm.roles.protocols import Features
from farm.tables.records import PairIds, merged, unannotated


@dataclass(frozen=True)
class Hindsight:
    """A person who judges before or after the outcome is seen.

    Raises:
        ValueError: for a share outside [0, 1].
    """

    free: ClassVar[bool] = True
    features: Features
    foresight_weights: dict[str, float]
    hindsight_weights: dict[str, float] | None = None
    """default: the gold weights"""
    hindsight: Share = 1.0
    """λ: the weight of the outcome, or the share of pairs whose outcome is seen"""
    blend: bool = False
    temperature: Positive = 1.0
    name: str = "hindsight"

    def __post_init__(self) -> None:
        check(self)
        _ = self.blended

    @cached_property
    def blended(self) -> LogitAnnotator:
        """The person who blends both."""
        return self._person(self.hindsight)

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        pairs = unannotated(pairs)
        if self.blend or self.hindsight in (0.0, 1.0):
            return self.blended.annotate(pairs, seed=seed, replicate=replicate)
        seen = rng.uniform(seed, "outcome seen", PairIds(pairs).pair) < self.hindsight
        groups = [(np.flatnonzero(seen), 1.0), (np.flatnonzero(~seen), 0.0)]
        return merged(
            pairs,
            [
                (r, self._person(x).annotate(pairs.iloc[r], seed=seed, replicate=replicate))
                for r, x in groups
                if r.size or not len(pairs)
            ],
        )

    def _person(self, share: float) -> LogitAnnotator:
        after = self.features.gold_weights if self.hindsight_weights is None else self.hindsight_weights
        names = dict.fromkeys([*self.foresight_weights, *after])
        weights = {k: (1 - share) * self.foresight_weights.get(k, 0.0) + share * after.get(k, 0.0) for k in names}
        return LogitAnnotator(self.features, name=self.name, weights=weights, temperature=self.temperature)
