"""The share of answers that a judge prefers to the baseline's, a tie counted one half; .5 is the SFT policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from eval.measures.column import of_method
from eval.rates.winrate import scores


@dataclass(frozen=True)
class Win:
    """The share of answers that a judge prefers to the baseline's."""

    judge: str = "judge"
    """role of the judge"""
    where: dict[str, Any] = field(default_factory=dict)
    """column -> the value that a row must have, or several"""

    @property
    def tables(self) -> Sequence[str]:
        return (f"judge_{self.judge}",)

    def values(self, tables: Mapping[str, pd.DataFrame], method: str) -> pd.DataFrame:
        """A verdict that is missing has no value."""
        table = tables[f"judge_{self.judge}"]
        return of_method(table.assign(score=np.asarray(scores(table["preference"]))), method, "score", self.where)
