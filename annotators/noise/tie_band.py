"""Ties: "equal" where the annotator's own logit is small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import logit

from farm.asking.givers import name_of
from farm.base.bounds import Bounded, NotNegative
from farm.base.errors import UserError
from farm.roles.protocols import Annotator
from farm.tables.records import unannotated


@dataclass(frozen=True)
class TieBand(Bounded):
    """Says "equal" where the annotator's own logit, ln(p_first / (1 - p_first)), is smaller than ``width``.

    A verdict without a probability keeps its label: nothing tells how small the difference was. So does a coin's.
    """

    wraps: ClassVar[tuple[str, ...]] = ("pairs",)
    annotator: Annotator
    width: NotNegative = 0.25

    @property
    def name(self) -> str:
        return f"ties of {name_of(self.annotator)}"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        table = self.annotator.annotate(unannotated(pairs), seed=seed, replicate=replicate)
        p_first = table["p_first"].to_numpy(dtype=np.float64)
        decisive = table["preference"].notna().to_numpy()
        if decisive.any() and np.isnan(p_first[decisive]).all():
            raise UserError(f"a tie band needs probabilities, and {name_of(self.annotator)} gives none")
        own = decisive & ~table["coin"].to_numpy(dtype=bool) if "coin" in table.columns else decisive
        with np.errstate(divide="ignore"):
            tied = own & (np.abs(logit(p_first)) < self.width)
        if "flipped" in table.columns:
            table = table.assign(flipped=table["flipped"].where(~tied, False))
        return table.assign(preference=np.where(tied, 1.5, table["preference"]))
