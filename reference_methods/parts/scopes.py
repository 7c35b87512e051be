"""Which prompts are in a scope that is said by their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from farm.base.arrays import Bools
from farm.base.errors import UserError, nearest


def within(table: pd.DataFrame, said: Mapping[str, Any], empty: bool) -> Bools:
    """Which rows have one of the values of each column, [n]; ``empty``: what holds where nothing is said.

    Raises:
        UserError: for a column that there is not.
    """
    found = np.full(len(table), bool(said) or empty)
    for column, values in said.items():
        if column not in table:
            raise UserError(f"a scope: prompts have no column `{column}`; {nearest(column, table.columns)}")
        found &= table[column].isin(values if isinstance(values, list) else [values]).to_numpy()
    return found
