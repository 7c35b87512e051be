"""Flips: any label is turned round with the same probability; above one half an adversary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotators.noise.coins import Question, TurnsRound, Unit
from farm.asking.givers import name_of
from farm.base.bounds import Share
from farm.roles.givers import Giver


@dataclass(frozen=True)
class Flip(TurnsRound):
    """Turns the label round with probability ``rate``, whatever the pair. Above 1/2 it is an adversary."""

    annotator: Giver
    rate: Share = 0.25
    key: Unit = "pair"

    @property
    def name(self) -> str:
        return f"flip of {name_of(self.annotator)}"

    def chances(self, asked: Question) -> NDArray[np.float64]:
        return np.full(len(asked.rows), self.rate)
