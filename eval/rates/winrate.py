"""Win rates from annotations: a tie is half a win, what is missing is counted by its reason.

A preference p in [1, 2] (AlpacaEval's orientation: 2 means that ``generator_2``, the method, wins against the baseline
``generator_1``) is the score s = p - 1. The win rate is the mean score; probabilities between 0 and 1 count as they are
(a continuous judge), and the discrete win rate rounds each to 0, 1/2 or 1 first. Rows without a preference are left
out of the mean and counted by status; nothing is ever tossed.

Values are fractions in [0, 1]; tables with AlpacaEval's column names hold percent, as theirs do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from farm.base.arrays import Floats
from farm.base.errors import UserError
from farm.statistics.result import Result
from farm.statistics.uncertainty import SHARE, Estimate, mean


@dataclass(frozen=True)
class WinRate(Result):
    """A win rate with everything a reader needs to trust it."""

    method: str
    baseline: str
    win_rate: float
    standard_error: float
    low: float
    high: float
    discrete_win_rate: float
    wins: int
    losses: int
    ties: int
    n: int
    """rows with a preference"""
    clusters: int
    missing: dict[str, int]
    """rows without a preference, by status"""
    clustered_by: tuple[str, ...] = ()
    confidence: float = 0.95
    tie_rule: str = "half a win"

    def alpaca_eval(self) -> dict[str, float | int]:
        """The row under AlpacaEval's own names, in percent."""
        return {
            "win_rate": 100 * self.win_rate,
            "standard_error": 100 * self.standard_error,
            "n_wins": self.wins,
            "n_wins_base": self.losses,
            "n_draws": self.ties,
            "n_total": self.n,
            "discrete_win_rate": 100 * self.discrete_win_rate,
        }


def scores(preference: ArrayLike | pd.Series) -> Floats:
    """Preferences in [1, 2] as scores in [0, 1], shape [n]; missing stays missing. A stored 0 is AlpacaEval's old tie.

    Raises:
        UserError: naming the row, for a preference outside [1, 2] that is neither 0 nor missing.
    """
    values = np.asarray(pd.to_numeric(pd.Series(preference)), dtype=np.float64)
    values = np.where(values == 0, 1.5, values)
    wrong = ~np.isnan(values) & ((values < 1) | (values > 2))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"row {row}: preference {float(values[row])!r} is outside [1, 2]; 1 is the baseline, 2 the method, "
            "1.5 a tie"
        )
    return values - 1


def discrete(score: Floats) -> Floats:
    """Scores rounded to 0, 1/2 or 1: above one half is a win, exactly one half a tie."""
    return np.where(np.isnan(score), np.nan, (np.sign(score - 0.5) + 1) / 2)


def win_rate(
    annotations: pd.DataFrame, *, clusters: Sequence[str] = ("instruction",), confidence: float = 0.95, method: str = ""
) -> WinRate:
    """The win rate of the second generator of an annotation table.

    Args:
        annotations: needs ``preference``; uses ``status`` and the generators where present.
        clusters: at most two columns whose equal values err together. A column that the table lacks is an error.

    Raises:
        UserError: for a preference outside [1, 2], mixed baselines or methods, or an absent cluster column.
    """
    for column in ("preference", *clusters):
        if column not in annotations:
            raise UserError(
                f"the annotations have no column `{column}`; found: {', '.join(map(str, annotations.columns))}"
            )
    baseline = only(annotations, "generator_1", "baseline")
    method = method or only(annotations, "generator_2", "method")
    score = scores(annotations["preference"])
    kept = ~np.isnan(score)
    labels = (annotations[c].to_numpy()[kept] for c in clusters)
    estimate = mean(score[kept], *labels, confidence=confidence, bounds=SHARE)
    missing = missing_by_status(annotations, score)
    return _from_estimate(estimate, score[kept], method, baseline, missing, tuple(clusters))


def _from_estimate(
    e: Estimate, score: Floats, method: str, baseline: str, missing: dict[str, int], clusters: tuple[str, ...]
) -> WinRate:
    rounded = float(discrete(score).mean()) if score.size else float("nan")
    return WinRate(
        method=method,
        baseline=baseline,
        win_rate=e.value,
        standard_error=e.standard_error,
        low=e.low,
        high=e.high,
        discrete_win_rate=rounded,
        wins=int((score > 0.5).sum()),
        losses=int((score < 0.5).sum()),
        ties=int((score == 0.5).sum()),
        n=e.n,
        clusters=e.clusters,
        missing=missing,
        clustered_by=clusters,
        confidence=e.confidence,
    )


def only(annotations: pd.DataFrame, column: str, what: str) -> str:
    """The one value of a column ("" where the column is absent). Raises UserError when two are mixed."""
    if column not in annotations or not len(annotations):
        return ""
    values = annotations[column].to_numpy()
    first = values[0]
    other = values != first
    if other.any():
        row = int(np.flatnonzero(other)[0])
        raise UserError(
            f"row {row}: the {what} is `{values[row]}` but row 0 has `{first}`; evaluate one {what} at a time"
        )
    return str(first)


def missing_by_status(annotations: pd.DataFrame, score: Floats) -> dict[str, int]:
    """How many rows have no preference, by status ("missing" where the table does not say why)."""
    gone = np.isnan(score)
    if not gone.any():
        return {}
    if "status" not in annotations:
        return {"missing": int(gone.sum())}
    status = annotations["status"].to_numpy()[gone].astype(object)
    status = np.where(pd.isna(status) | (status == "ok"), "missing", status)
    names, counts = np.unique(status.astype(str), return_counts=True)
    return {str(n): int(c) for n, c in zip(names, counts, strict=True)}
