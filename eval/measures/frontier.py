"""One number of the training at equal another: gold at equal KL, regret at equal queries.

A training leaves a curve (x_k, y_k), one point a step. The value is y where x first reaches ``at``, linearly between
the two steps around it; a training that does not reach it, or begins beyond it, has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eval.measures.logged import series
from farm.base.arrays import Floats


@dataclass(frozen=True)
class Frontier:
    """``y`` where ``x`` first reaches ``at``."""

    at: float
    x: str = "kl"
    y: str = "gold"
    table: str = "metrics"

    @property
    def tables(self) -> Sequence[str]:
        return (self.table,)

    def values(self, tables: Mapping[str, pd.DataFrame], method: str) -> pd.DataFrame:
        x, y = (series(tables[self.table], method, name) for name in (self.x, self.y))
        return pd.DataFrame({"value": [first_crossing(x, y, self.at)]})


def first_crossing(x: Floats, y: Floats, at: float) -> float:
    """y where x first reaches ``at``, [K] each in the order of the steps; NaN where it does not.

    >>> first_crossing(np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 4.0]), 2.0)
    3.0
    """
    reached = np.flatnonzero(x >= at)
    if not reached.size or (reached[0] == 0 and x[0] > at):
        return float("nan")
    k = int(reached[0])
    if x[k] == at:
        return float(y[k])
    share = (at - x[k - 1]) / (x[k] - x[k - 1])
    return float(y[k - 1] + share * (y[k] - y[k - 1]))
