"""Feedback that is not always given: a verdict is observed with a probability that may depend on the verdict itself.

    e = σ(b + c |logit p_first|)     clear cases are commented on more often (c > 0), or less

Rows that are not observed have the status "unobserved" and no preference. ``propensity`` is e, so that weighting by its
inverse makes up for what is missing; a mean of what was observed is biased where e depends on the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from farm.asking.givers import name_of
from farm.base import rng
from farm.base.errors import UserError
from farm.roles.protocols import Annotator
from farm.tables.records import PairIds, unannotated


@dataclass(frozen=True)
class Observed:
    """Withholds verdicts: not at random where ``by_margin`` or ``by_verdict`` is not 0."""

    wraps: ClassVar[tuple[str, ...]] = ("pairs",)
    annotator: Annotator
    base: float = 0.0
    """b: log-odds of being observed"""
    by_margin: float = 0.0
    """c"""
    by_verdict: float = 0.0
    """added where the verdict is for the output shown first"""

    @property
    def name(self) -> str:
        return f"observed {name_of(self.annotator)}"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        table = self.annotator.annotate(unannotated(pairs), seed=seed, replicate=replicate)
        chance = np.full(len(table), self.base)
        verdict = table["preference"].to_numpy(dtype=np.float64)
        if self.by_margin:
            p_first = table["p_first"].to_numpy(dtype=np.float64)
            if np.isnan(p_first[~np.isnan(verdict)]).any():
                raise UserError(f"by_margin needs probabilities, and {name_of(self.annotator)} does not give them all")
            with np.errstate(divide="ignore"):
                chance += self.by_margin * np.minimum(np.abs(logit(np.nan_to_num(p_first, nan=0.5))), 20.0)
        chance += self.by_verdict * (verdict == 1.0)
        propensity = np.asarray(expit(chance))
        hidden = rng.uniform(seed, f"observed: {self.name}", PairIds(table).pair, replicate) >= propensity
        hidden &= table["status"].to_numpy(dtype=object) == "ok"
        return table.assign(
            preference=np.where(hidden, np.nan, verdict),
            p_first=np.where(hidden, np.nan, table["p_first"].to_numpy(dtype=np.float64)),
            status=np.where(hidden, "unobserved", table["status"].to_numpy(dtype=object)),
            propensity=propensity,
        )
