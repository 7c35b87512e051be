"""The share of answers that have a feature, in a scope of instructions or outside of it.

value = 1 where the feature of an answer is at least ``least``, else 0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from eval.measures.column import of_method
from farm.base.errors import nearest
from farm.roles.protocols import Features
from farm.tables.turns import prompts_of


@dataclass(frozen=True)
class Feature:
    """The share of answers with a feature."""

    feature: str
    features: Features
    """what sees the feature in a text: {class: farm.worlds.pocket.gold.PocketFeatures}"""
    least: float = 1.0
    where: dict[str, Any] = field(default_factory=dict)
    """column -> the value that a row must have, or several"""
    unless: dict[str, Any] = field(default_factory=dict)
    """column -> the value that it must not have, or several"""

    @property
    def tables(self) -> Sequence[str]:
        return ("outputs",)

    def values(self, tables: Mapping[str, pd.DataFrame], method: str) -> pd.DataFrame:
        table = tables["outputs"]
        seen = self.features(prompts_of(table), table["output"].tolist())
        if self.feature not in seen:
            raise ValueError(f"there is no feature `{self.feature}`; {nearest(self.feature, seen.columns)}")
        has = (seen[self.feature].to_numpy(np.float64) >= self.least).astype(np.float64)
        return of_method(table.assign(**{"the feature": has}), method, "the feature", self.where, self.unless)
