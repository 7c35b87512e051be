"""Principles by a language model: it proposes sentences from labelled pairs, and says what each of them selects.

Both questions go the way of every question to a model: the store, limits and the budget (annotators/llm/session.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from annotators.llm import verdicts
from annotators.llm.feedback import Asker, text_of
from annotators.llm.prompt import Item, Task
from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Count
from farm.tables.records import PairIds
from farm.tables.turns import prompts_of
from farm.votes.principles import unanimous


@dataclass(frozen=True)
class LLMProposer(Asker):
    """Explains labels."""

    prompt: str = "propose"
    task: Task = field(default="propose", init=False, repr=False)

    def propose(self, pairs: pd.DataFrame, *, each: int, seed: int) -> list[str]:
        """At most ``each`` sentences of every pair, in which ``output_1`` was preferred."""
        answers = self._ask(_items(pairs), seed, 0)
        return [sentence for answer in answers for sentence in verdicts.sentences(text_of(answer))[:each]]


@dataclass(frozen=True)
class LLMVoter(Asker):
    """Says which output of a pair each principle selects."""

    prompt: str = "vote"
    max_tokens: Count = 600
    rounds: Count = 3
    """of votes, each with the outputs in an order drawn anew; what not all agree on is no vote"""
    at_once: Count = 40
    """principles in one question"""
    task: Task = field(default="vote", init=False, repr=False)

    def votes(self, pairs: pd.DataFrame, principles: Sequence[str], *, seed: int) -> Floats:
        """1 where a principle selects ``output_1``, -1 ``output_2``, 0 none, NaN without a readable vote: [N, P]."""
        return unanimous(np.stack([self._round(pairs, principles, seed, number) for number in range(self.rounds)]))

    def _round(self, pairs: pd.DataFrame, principles: Sequence[str], seed: int, number: int) -> Floats:
        turned = rng.uniform(seed, "order before principles", PairIds(pairs).pair, number) < 0.5
        one, two = (np.asarray(pairs[column], dtype=object) for column in ("output_1", "output_2"))
        shown = pairs.assign(output_1=np.where(turned, two, one), output_2=np.where(turned, one, two))
        out = np.full((len(pairs), len(principles)), np.nan)
        for start in range(0, len(principles), self.at_once):
            asked = principles[start : start + self.at_once]
            for row, answer in enumerate(self._ask(_items(shown), seed, number, asked)):
                out[row, start : start + len(asked)] = verdicts.selected(text_of(answer), len(asked))
        return np.where(turned[:, None], -out, out)


def _items(pairs: pd.DataFrame) -> list[Item]:
    both = zip(prompts_of(pairs), pairs["output_1"], pairs["output_2"], strict=True)
    return [Item(prompt, (first, second)) for prompt, first, second in both]
