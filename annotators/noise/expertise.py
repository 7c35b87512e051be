"""Expertise: how often a label is turned round depends on the topic.

The topic is a column of the pairs (``topic``), or what words stand in the instruction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotators.noise.coins import Question, TurnsRound
from farm.asking.givers import name_of
from farm.base.bounds import Share
from farm.roles.givers import Giver


@dataclass(frozen=True)
class Expertise(TurnsRound):
    """Turns the label round with the probability of the pair's topic.

    Args:
        rates: topic -> flip rate.
        other: the rate of any other topic.
        column: where the topic stands; pairs without it are searched for ``words``.
        words: topic -> words of the instruction that tell it, the first topic found counts; default: its own name.
    """

    annotator: Giver
    rates: dict[str, Share]
    other: Share = 0.25
    column: str = "topic"
    words: dict[str, list[str]] | None = None

    @property
    def name(self) -> str:
        return f"expertise of {name_of(self.annotator)}"

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that an answer depends on."""
        return (self.column,)

    def chances(self, asked: Question) -> NDArray[np.float64]:
        if self.column in asked.rows.columns:
            return asked.rows[self.column].map(self.rates).fillna(self.other).to_numpy(dtype=np.float64)
        out = np.full(len(asked.rows), self.other)
        lowered = asked.rows["instruction"].str.lower()
        for topic, rate in reversed(self.rates.items()):
            words = (self.words or {}).get(topic, [topic])
            found = lowered.str.contains("|".join(rf"\b{re.escape(w.lower())}\b" for w in words), regex=True)
            out[found.to_numpy(dtype=bool)] = rate
        return out
