"""Length-controlled win rates from saved coefficients, as AlpacaEval publishes them beside its boards."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit

from farm.base.errors import UserError

WEIGHT_COLUMNS = {
    "np.tanh(std_delta_len)": "length",
    "instruction_difficulty": "difficulty",
    "not_gamed_baseline.astype(float)": "intercept",
}
"""The column names of published coefficient files, and ours."""


def read_weights(table: pd.DataFrame, origin: str = "the weights") -> pd.DataFrame:
    """Published coefficients by method (index): columns length, difficulty, intercept."""
    named = table.rename(columns=WEIGHT_COLUMNS)
    first = named.columns[0]
    for column in WEIGHT_COLUMNS.values():
        if column not in named:
            raise UserError(f"{origin}: the column `{column}` is missing")
    named = named.set_index(first) if first not in WEIGHT_COLUMNS.values() else named
    repeated = named.index[named.index.duplicated()]
    if len(repeated):
        raise UserError(f"{origin}: `{repeated[0]}` has two rows of weights")
    return named[list(WEIGHT_COLUMNS.values())].astype(np.float64)


def from_weights(weights: pd.DataFrame, difficulty: ArrayLike, method: str, baseline: str | None = None) -> float:
    """LC from saved coefficients: mean sigmoid(dtheta + dpsi * gamma) over all difficulties.

    ``baseline`` may be any other method with weights (default: the one the weights were fitted against, whose own are
    zero). LC(m, m) = 1/2 and LC(m, b) = 1 - LC(b, m) hold exactly.
    """
    for name in (method, baseline):
        if name is not None and name not in weights.index:
            raise UserError(f"there are no weights for `{name}`")
    delta = weights.loc[method]
    if baseline is not None:
        delta = delta - weights.loc[baseline]
    return float(expit(delta["intercept"] + delta["difficulty"] * np.asarray(difficulty, dtype=np.float64)).mean())
