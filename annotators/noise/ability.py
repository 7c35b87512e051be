"""Ability against difficulty (GLAD: Whitehill and others, NeurIPS 2009): P(right) = σ(α β_i).

α is the annotator's ability, below 0 for those who mean the opposite; ln β_i ~ N(0, s²) is the easiness of pair i, the
same for every annotator. What is right is what the inner annotator says, best a greedy one: GLAD fitted to votes
(farm/votes/competence.py) finds α and β again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from annotators.noise.coins import with_coins
from farm.asking.givers import name_of
from farm.base import rng
from farm.base.bounds import NotNegative, check
from farm.roles.protocols import Annotator
from farm.tables.records import PairIds


@dataclass(frozen=True)
class Ability:
    """Turns the label round with probability 1 - σ(``ability`` β), decided by coins before the annotator is asked."""

    annotator: Annotator
    ability: float = 1.0
    easiness_spread: NotNegative = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        check(self)
        if not self.name:
            object.__setattr__(self, "name", f"ability {self.ability:g} of {name_of(self.annotator)}")

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        easiness = np.exp(self.easiness_spread * rng.normal(0, "easiness", PairIds(pairs).pair))
        rate = np.asarray(1 - expit(self.ability * easiness))
        return with_coins(self.annotator, pairs, rate, "pair", purpose=self.name, seed=seed, replicate=replicate)
