"""Row by row against a published leaderboard: the largest deviation a column, and every row beyond a tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from farm.base.errors import UserError
from farm.statistics import terminal
from farm.statistics.folding import folded
from farm.statistics.result import Result

LENGTH_CONTROLLED = "length_controlled_winrate"

COMPARED = {
    "win_rate": 1e-6,
    "standard_error": 1e-6,
    "n_wins": 0.0,
    "n_wins_base": 0.0,
    "n_draws": 0.0,
    "n_total": 0.0,
    "discrete_win_rate": 1e-6,
    LENGTH_CONTROLLED: 0.005,
    "lc_standard_error": 0.005,
    "avg_length": 2.0,
}
"""The columns that are compared, and the deviation that still counts as equal. Some published lengths are not those of
the published outputs: by 1 or 2 characters for five models of AlpacaEval 1, and by 184 for one."""


@dataclass(frozen=True)
class PublishedComparison(Result):
    """How far recomputed numbers are from published ones."""

    columns: pd.DataFrame
    """column, compared rows, largest deviation, where, tolerance, rows beyond it"""
    beyond: pd.DataFrame
    """method, column, ours, published, deviation; every pair beyond its tolerance"""
    only_here: tuple[str, ...]
    only_published: tuple[str, ...]
    origin: str
    recipe: str = ""
    """the options that would follow the published recipe more closely, where length-controlled numbers are not equal"""

    def table(self) -> pd.DataFrame:
        return self.columns

    def settings(self) -> dict[str, Any]:
        return {
            "published": self.origin,
            "only here": f"{len(self.only_here)} methods",
            "only published": f"{len(self.only_published)} methods",
        }

    def __str__(self) -> str:
        body = super().__str__()
        if len(self.beyond):
            body += "\n\nbeyond the tolerance:\n" + terminal.shown(self.beyond)
        else:
            body += "\nno row is beyond its tolerance"
        return body + (
            "\n" + folded(f"the published recipe takes: {self.recipe}", break_words=True) if self.recipe else ""
        )


def read_published(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """A published leaderboard with the methods as index. Raises UserError for a repeated method."""
    name = next((c for c in ("method", "model", "name") if c in table), table.columns[0])
    table = table.set_index(table[name].astype(str))
    repeated = table.index[table.index.duplicated()]
    if len(repeated):
        raise UserError(f"{origin}: `{repeated[0]}` stands in two rows")
    if not set(COMPARED) & set(table.columns):
        raise UserError(f"{origin}: has none of the columns {', '.join(COMPARED)}")
    return table


def compare(
    ours: pd.DataFrame,
    published: pd.DataFrame,
    *,
    origin: str = "",
    tolerances: dict[str, float] | None = None,
    recipe: str = "",
) -> PublishedComparison:
    """Compare a board (column ``method``) with a published one (index = methods) by name.

    Args:
        recipe: options of the published length control that were not given; mentioned where its numbers are not equal.
    """
    limits = COMPARED | (tolerances or {})
    mine = ours.set_index("method")
    shared = [m for m in mine.index if m in published.index]
    if not shared:
        raise UserError(f"{origin}: names none of the {len(mine)} methods of this board")
    summary, beyond = [], []
    for column, limit in limits.items():
        if column not in mine or column not in published:
            continue
        a = pd.to_numeric(mine.loc[shared, column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        b = pd.to_numeric(published.loc[shared, column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        both = ~(np.isnan(a) | np.isnan(b))
        if not both.any():
            continue
        deviation = np.where(both, np.abs(a - b), -1)
        worst = int(np.argmax(deviation))
        over = np.flatnonzero(deviation > limit)
        summary.append(
            {
                "column": column,
                "compared": int(both.sum()),
                "largest_deviation": float(deviation[worst]),
                "at": shared[worst],
                "tolerance": limit,
                "beyond": over.size,
            }
        )
        beyond += [
            {"method": shared[k], "column": column, "ours": a[k], "published": b[k], "deviation": deviation[k]}
            for k in over
        ]
    table = pd.DataFrame(beyond, columns=["method", "column", "ours", "published", "deviation"])
    lacking = LENGTH_CONTROLLED in published and LENGTH_CONTROLLED not in mine
    unequal = lacking or table["column"].isin([LENGTH_CONTROLLED, "lc_standard_error"]).any()
    return PublishedComparison(
        pd.DataFrame(summary),
        table,
        tuple(m for m in mine.index if m not in published.index),
        tuple(m for m in published.index if m not in mine.index),
        origin,
        recipe if unequal else "",
    )
