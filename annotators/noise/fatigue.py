"""Fatigue: the longer a session, the more answers are given without looking.

The place t = 0, 1, ... of a pair in its session is the column ``place_in_session`` where the pairs have it, and else
drawn for each pair. The chance of a random answer rises from ``fresh`` to ``tired`` with time constant ``patience``:

    λ(t) = fresh + (tired - fresh) (1 - exp(-t / patience))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotators.noise.coins import Question, TurnsRound
from farm.asking.givers import name_of
from farm.base import rng
from farm.base.bounds import Count, Positive, Share
from farm.roles.givers import Giver
from farm.tables.given_answers import required

PLACE = "place_in_session"


@dataclass(frozen=True)
class Fatigue(TurnsRound):
    """Answers at random with a probability that rises through a session of ``session`` pairs."""

    annotator: Giver
    fresh: Share = 0.0
    tired: Share = 0.4
    patience: Positive = 40.0
    session: Count = 100

    @property
    def name(self) -> str:
        return f"fatigue of {name_of(self.annotator)}"

    def chances(self, asked: Question) -> NDArray[np.float64]:
        if PLACE in asked.rows.columns:
            place = required(asked.rows[PLACE], PLACE, "fatigue", least=0.0)
        else:
            drawn = rng.integers(self.session, asked.seed, "place in session", asked.unit, asked.replicate)
            place = drawn.astype(np.float64)
        rate = self.fresh + (self.tired - self.fresh) * (1 - np.exp(-place / self.patience))
        return np.asarray(rate / 2)
