"""People in a context: what counts depends on what an answer is for, and the table says what that was.

    c ~ weights, keyed by the pair;    the annotator of context c answers, and column ``context`` has its name
    P(y1 > y2) = Σ_c p(c) P(y1 > y2 | c)                      what a table without contexts would show

A row that comes with a ``context`` is asked in that one. With ``reversals`` the replicates of a pair are asked in one
context after the other, so that two replicates show which preferences turn round; without them each replicate draws.

Paper: Pitis et al. (arXiv 2407.14916), whose pairs come with two contexts each in which the preference is the opposite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.people.pool import Pool
from farm.asking.givers import name_of
from farm.base.errors import UserError, nearest
from farm.tables.records import PairIds


@dataclass(frozen=True)
class Contextual(Pool):
    """A pool of annotators, each the person in one context; contexts have their names."""

    reads: ClassVar[tuple[str, ...]] = ("context",)
    reversals: bool = False
    """whether replicates of a pair are asked in one context after the other"""
    name: str = "contextual"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        which = self.contexts(pairs, seed, replicate)
        table = self.asked(pairs, which, seed=seed, replicate=replicate)
        names = np.array([name_of(annotator) for annotator in self.annotators], dtype=object)
        return table.assign(context=names[which])

    def contexts(self, pairs: pd.DataFrame, seed: int, replicate: int = 0) -> NDArray[np.int64]:
        """Which context each row is asked in, int64 [n]: that of its column ``context``, or a drawn one.

        Raises:
            UserError: for a context that nobody here is the person of.
        """
        ids = PairIds(pairs)
        if self.reversals:
            which = (self.assigned(ids, seed) + np.asarray(replicate, dtype=np.int64)) % len(self.annotators)
        else:
            which = self.assigned(ids, seed, replicate)
        if "context" not in pairs.columns:
            return which
        number = {name_of(annotator): k for k, annotator in enumerate(self.annotators)}
        for row in np.flatnonzero(pairs["context"].notna()):
            said = str(pairs["context"].iloc[row])
            if said not in number:
                raise UserError(f"row {row}: there is no context {said[:60]!r}; {nearest(said, number)}")
            which[row] = number[said]
        return which
