"""What a method logs while it learns, as one number a training: regret and queries in sum, a loss at its end.

The rows are those of a table with a line a step (``metrics``, or one that a run computed), in the order of ``step``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from annotated_types import Ge, Lt
from numpy.typing import NDArray

from eval.measures.column import of_method


@dataclass(frozen=True)
class Logged:
    """One number of the lines of a training."""

    name: str
    how: Literal["sum", "mean", "last", "max"] = "last"
    since: Annotated[float, Ge(0), Lt(1)] = 0.0
    """the share of the steps that is left out at the beginning"""
    table: str = "metrics"

    @property
    def tables(self) -> Sequence[str]:
        return (self.table,)

    def values(self, tables: Mapping[str, pd.DataFrame], method: str) -> pd.DataFrame:
        found = series(tables[self.table], method, self.name)
        found = found[int(self.since * len(found)) :]
        value = {"sum": found.sum(), "mean": found.mean(), "last": found[-1], "max": found.max()}[self.how]
        return pd.DataFrame({"value": [float(value)]})


def series(table: pd.DataFrame, method: str, name: str) -> NDArray[np.float64]:
    """The numbers of one name in the order of the steps, without the lines that have none, [K].

    Raises:
        ValueError: where there is none.
    """
    ordered = table.sort_values("step", kind="stable") if "step" in table else table
    found = of_method(ordered, method, name)["value"].to_numpy(np.float64)
    kept = found[~np.isnan(found)]
    if not kept.size:
        raise ValueError(f"{method} logs no `{name}`")
    return kept
