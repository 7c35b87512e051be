"""Difficulty: each pair has its own chance of a wrong label."""

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
class Difficulty(TurnsRound):
    """Turns the label round with a probability of the pair's own: σ(-|m|) with a margin m ~ N(0, ``spread``²).

    Easy pairs are hardly ever turned round and hard ones half of the time, as people's votes are, while a constant
    flip treats all alike. The margin belongs to the pair: every annotator and replicate meets the same difficulty.
    On five-vote splits of UKPConvArg a constant flip is rejected (χ² 348, 4 df) and this shape is not (7.2); the
    default spread gives AlpacaFarm's humans, one against the majority of three others, .6566.
    """

    annotator: Giver
    spread: NotNegative = 1.31

    @property
    def name(self) -> str:
        return f"difficulty of {name_of(self.annotator)}"

    def chances(self, asked: Question) -> NDArray[np.float64]:
        margin = self.spread * rng.normal(asked.seed, "difficulty", asked.unit)
        return np.asarray(expit(-np.abs(margin)))
