"""Ability against difficulty (GLAD: Whitehill and others, NeurIPS 2009): P(right) = σ(α β_i).

α is the annotator's ability, below 0 for those who mean the opposite; ln β_i ~ N(0, s²) is the easiness of pair i, the
same for every annotator. What is right is what the inner annotator says, best a greedy one: GLAD fitted to votes
(farm/votes/competence.py) finds α and β again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from annotators.noise.coins import Question, TurnsRound
from farm.asking.givers import name_of
from farm.base import rng
from farm.base.bounds import NotNegative
from farm.roles.givers import Giver


@dataclass(frozen=True)
class Ability(TurnsRound):
    """Turns the label round with probability 1 - σ(``ability`` β), decided by coins before the annotator is asked."""

    annotator: Giver
    ability: float = 1.0
    easiness_spread: NotNegative = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            object.__setattr__(self, "name", f"ability {self.ability:g} of {name_of(self.annotator)}")

    def chances(self, asked: Question) -> NDArray[np.float64]:
        easiness = np.exp(self.easiness_spread * rng.normal(0, "easiness", asked.unit))
        return np.asarray(1 - expit(self.ability * easiness))
