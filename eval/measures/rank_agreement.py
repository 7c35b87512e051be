"""How alike two rankings of all methods are: of what they learned here, and what they learned in a variant beside it.

    value = Spearman's correlation, over the methods of both, of their shares of wins by ``judge`` here and by
            ``other_judge`` there,   less ``least``

So it compares what was learned from simulated feedback and judged in simulation with what was learned from people's and
judged by people (AlpacaFarm, arXiv 2305.14387). It is one number of a run: any of its methods may be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from eval.ranks.ranking import spearman
from eval.rates.winrate import scores


@dataclass(frozen=True)
class RankAgreement:
    """Spearman's correlation of the methods' win rates in two variants."""

    beside: dict[str, Any] = field(default_factory=dict)
    """swept key -> its value in the other variant"""
    judge: str = "judge"
    other_judge: str = "humans"
    least: float = 0.0
    """the correlation that is called 0"""

    @property
    def tables(self) -> Sequence[str]:
        return tuple({f"judge_{self.judge}", f"judge_{self.other_judge}"})

    def values(self, tables: Mapping[str, pd.DataFrame], method: str) -> pd.DataFrame:
        """Of one variant, by both judges."""
        return self.values_beside(tables, tables, method)

    def values_beside(
        self, tables: Mapping[str, pd.DataFrame], others: Mapping[str, pd.DataFrame], method: str
    ) -> pd.DataFrame:
        """One row.

        Raises:
            ValueError: with fewer than three methods, of which no ranking says anything.
        """
        del method
        here, there = _shares(tables[f"judge_{self.judge}"]), _shares(others[f"judge_{self.other_judge}"])
        both = here.index.intersection(there.index)
        if len(both) < 3:
            raise ValueError(f"a ranking is of three methods or more, and both variants have {len(both)}")
        found = spearman(here[both].to_numpy(np.float64), there[both].to_numpy(np.float64))
        return pd.DataFrame({"value": [float(found) - self.least]})


def _shares(verdicts: pd.DataFrame) -> pd.Series:
    """The share of wins of each method."""
    return verdicts.assign(score=np.asarray(scores(verdicts["preference"]))).groupby("method")["score"].mean()
