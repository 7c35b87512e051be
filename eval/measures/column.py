"""The mean of a column of a table: gold utility, proxy reward, KL, length, or what a run computed; by group or scope.

value = the column, in the rows of the method in which other columns have the values of ``where``, not of ``unless``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from farm.base.errors import nearest


@dataclass(frozen=True)
class Column:
    """The mean of a column."""

    column: str = "gold"
    table: str = "outputs"
    where: dict[str, Any] = field(default_factory=dict)
    """column -> the value that a row must have, or several: a group of users, a scope of instructions"""
    unless: dict[str, Any] = field(default_factory=dict)
    """column -> the value that it must not have, or several"""

    @property
    def tables(self) -> Sequence[str]:
        return (self.table,)

    def values(self, tables: Mapping[str, pd.DataFrame], method: str) -> pd.DataFrame:
        return of_method(tables[self.table], method, self.column, self.where, self.unless)


def of_method(
    table: pd.DataFrame,
    method: str,
    column: str,
    where: Mapping[str, Any] | None = None,
    unless: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """``value`` and, where the table has it, ``instruction`` of the rows of a method.

    Raises:
        ValueError: for a column that is not there, or a method or group without a row.
    """
    if column not in table:
        raise ValueError(f"the table has no column `{column}`; {nearest(column, table.columns)}")
    rows = rows_of(table, method, where, unless)
    found = pd.DataFrame({"value": pd.to_numeric(rows[column]).to_numpy(np.float64)})
    return found.assign(instruction=rows["instruction"].to_numpy()) if "instruction" in rows else found


def rows_of(
    table: pd.DataFrame, method: str, where: Mapping[str, Any] | None = None, unless: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """The rows of a method in which other columns have the values of ``where``, and not of ``unless``.

    Raises:
        ValueError: for a column that is not there, or a method or value without a row.
    """
    chosen, kept = {"method": method, **(where or {})}, np.ones(len(table), dtype=bool)
    for name in (*chosen, *(unless or {})):
        if name not in table:
            raise ValueError(f"the table has no column `{name}`; {nearest(name, table.columns)}")
    for wanted, meant in ((chosen, True), (unless or {}, False)):
        for name, values in wanted.items():
            for value in values if isinstance(values, list) else [values]:
                if not (table[name] == value).any():
                    raise ValueError(f"no row has {name} {value}; {nearest(str(value), table[name].unique())}")
            kept &= table[name].isin(values if isinstance(values, list) else [values]).to_numpy() == meant
    return table[kept]
