"""Lapses: answers without looking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotators.noise.coins import Question, TurnsRound, Unit
from farm.asking.givers import name_of
from farm.base.bounds import Share
from farm.roles.givers import Giver


@dataclass(frozen=True)
class Lapse(TurnsRound):
    """Answers at random with probability ``rate``, without looking: the same as a flip of ``rate`` / 2."""

    annotator: Giver
    rate: Share = 0.1
    key: Unit = "pair"

    @property
    def name(self) -> str:
        return f"lapse of {name_of(self.annotator)}"

    def chances(self, asked: Question) -> NDArray[np.float64]:
        return np.full(len(asked.rows), self.rate / 2)
