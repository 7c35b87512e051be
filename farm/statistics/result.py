"""What every statistic returns: a frozen object that carries its settings and prints well everywhere.

A result is a frozen dataclass that inherits :class:`Result`. It prints as a small table with its settings below
(terminal), as an HTML table (notebook) and as plain data (JSON); fractions stay fractions, nothing is rounded in
:meth:`Result.to_dict`.
"""

from __future__ import annotations

import dataclasses
import html
import json
import math
from typing import Any

import numpy as np
import pandas as pd

from farm.statistics import terminal
from farm.statistics.folding import folded


class Result:
    """Base of the frozen result classes. A subclass may override :meth:`table` to choose what is shown."""

    def table(self) -> pd.DataFrame:
        """The result as a table: by default one row with the scalar fields."""
        scalars = {
            k: v for k, v in self._fields().items() if not isinstance(v, (pd.DataFrame, np.ndarray, dict, tuple))
        }
        return pd.DataFrame([scalars])

    def printed(self) -> pd.DataFrame:
        """The table as a terminal shows it, what matters most first: columns that find no room are left out there."""
        return self.table()

    def settings(self) -> dict[str, Any]:
        """The settings under which the result was computed, as far as the table does not show them."""
        return {k: v for k, v in self._fields().items() if isinstance(v, (dict, tuple))}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: arrays become lists, tables lists of rows, missing numbers None."""
        return {name: plain(value) for name, value in self._fields().items()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def _fields(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def __str__(self) -> str:
        body = terminal.shown(self.printed())
        return "\n".join(part for part in (type(self).__name__, body, self.said()) if part)

    def said(self) -> str:
        """The settings for a terminal."""
        said = (f"{k}: {_short(v)}" for k, v in self.settings().items() if v not in ({}, (), None))
        return folded("; ".join(said), break_words=True)

    def _repr_html_(self) -> str:
        body = self.table().to_html(index=False, float_format=lambda x: f"{x:.4g}", na_rep="", escape=True)
        said = "; ".join(f"{k}: {_short(v)}" for k, v in self.settings().items() if v not in ({}, (), None))
        return f"<div><b>{type(self).__name__}</b>{body}<small>{html.escape(said)}</small></div>"


def plain(value: Any) -> Any:
    """``value`` as data that JSON can hold."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in value.to_dict(orient="records")]
    if isinstance(value, pd.Series):
        return plain(value.to_dict())
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is pd.NA or value is pd.NaT:
        return None
    return value


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, tuple):
        return ", ".join(str(v) for v in value)
    return str(value)
