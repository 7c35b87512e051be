"""An annotator that follows a constitution of predicates: the first principle that applies decides, or the sum of all.

It draws nothing. A pair to which no principle applies, and one whose principles balance, is a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from farm.base.bounds import check
from farm.roles.protocols import Features
from farm.tables.records import PairIds, annotation_table, unannotated
from farm.votes.predicates import Predicate, differences, votes
from farm.votes.principles import Rule, decided


@dataclass(frozen=True)
class Constitution:
    """Prefers by principles, best first; `farm principles` writes one.

    Raises:
        ValueError: without a principle.
        UserError: when annotating, for a feature that the texts do not have.
    """

    free: ClassVar[bool] = True
    features: Features
    principles: list[Predicate]
    rule: Rule = "first"
    name: str = "constitution"

    def __post_init__(self) -> None:
        check(self)
        if not self.principles:
            raise ValueError("a constitution needs at least one principle")

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        pairs = unannotated(pairs)
        selected = decided(votes(self.principles, differences(self.features, pairs)), self.rule)
        selected[PairIds(pairs).identical] = 0.0
        unknown = np.full(len(pairs), np.nan)
        return annotation_table(pairs, self.name, 1.5 - selected / 2, unknown, seed=seed, replicate=replicate)
