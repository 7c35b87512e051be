"""Many judge runs with a gold label beside each verdict (LLMBar): accuracy, consistency over orders, position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.arrays import Floats
from farm.base.errors import UserError
from farm.base.errors import shown as cell
from farm.statistics.result import Result
from farm.statistics.uncertainty import codes, limits
from farm.tables.formats import require_labels


@dataclass(frozen=True)
class JudgeRuns(Result):
    """One row a judge run: accuracy, consistency over orders, kappa, position."""

    runs: pd.DataFrame
    by: tuple[str, ...]
    origin: str
    confidence: float = 0.95

    def table(self) -> pd.DataFrame:
        return self.runs

    def settings(self) -> dict[str, Any]:
        return {
            "runs": len(self.runs),
            "complete runs": f"{int(self.runs['complete'].sum())} (every pair once in each order, no verdict missing)",
            "by": ", ".join(self.by),
            "intervals": "clustered by pair",
            "confidence": self.confidence,
            "source": self.origin,
        }


def audit_runs(
    votes: pd.DataFrame, by: Sequence[str], *, truth: str = "human_label", confidence: float = 0.95
) -> pd.DataFrame:
    """Many judge runs with a gold label beside each verdict (LLMBar): one row a run.

    accuracy (both orders) with its interval clustered by pair, consistent (the same verdict in both orders), kappa
    between the orders, prefers_first, n, missing; a pair without both verdicts does not count for consistency.
    ``complete``: every pair was judged once in each order and every verdict is there.
    """
    by = list(by)
    if truth not in votes:
        raise UserError(f"the runs have no column `{truth}` to be judged by")
    for column in by:
        if column not in votes:
            raise UserError(f"the runs have no column `{column}`; there are: {', '.join(map(str, votes.columns))}")
        require_labels(votes, column, "the runs")
    label = pd.to_numeric(votes[truth], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if not np.isfinite(label).all():
        row = int(np.flatnonzero(~np.isfinite(label))[0])
        raise UserError(f"the runs: row {row + 1}: `{truth}` is not a number: {cell(votes[truth].iloc[row])}")
    groups = votes.groupby(by, sort=True)
    run, number = groups.ngroup().to_numpy(), groups.ngroups
    given, shown = votes["given"].to_numpy(np.float64), votes["shown"].to_numpy(np.float64)
    seen = ~np.isnan(given)
    right = (given == (label == 1)).astype(np.float64)

    def total(values: Floats, kept: NDArray[np.bool_], at: NDArray[Any]) -> Floats:
        return np.asarray(np.bincount(at[kept], weights=values[kept], minlength=number), np.float64)

    n = total(np.ones(len(votes)), seen, run)
    accuracy = total(right, seen, run) / n
    item, items = codes(votes["item"].to_numpy().astype(str))
    pair = run * items + item
    at, place = np.unique(pair, return_inverse=True)
    of_run = at // items
    residual = np.bincount(place[seen], weights=(right - accuracy[run])[seen], minlength=len(at))
    clusters = np.bincount(of_run[np.bincount(place[seen], minlength=len(at)) > 0], minlength=number)
    squares = np.bincount(of_run, weights=residual**2, minlength=number)
    error = np.sqrt(squares * clusters / np.maximum(clusters - 1, 1)) / n
    decisive = seen & (shown != 0.5)
    order = votes["reversed"].to_numpy(bool)
    verdict = np.full((2, len(at)), np.nan)
    for k in (0, 1):
        rows = np.flatnonzero((order == bool(k)) & seen)[::-1]  # the first verdict of each order stays
        verdict[k, place[rows]] = given[rows]
    both = ~np.isnan(verdict).any(axis=0)
    a, b = verdict[0], verdict[1]
    pairs = total(np.ones(len(at)), both, of_run)
    with np.errstate(invalid="ignore", divide="ignore"):
        consistent = total((a == b).astype(np.float64), both, of_run) / pairs
        expected = np.zeros(number)
        for v in (0.0, 0.5, 1.0):
            expected += total((a == v) * 1.0, both, of_run) * total((b == v) * 1.0, both, of_run) / pairs**2
        kappa = (consistent - expected) / (1 - expected)
        first = total((shown > 0.5).astype(np.float64), decisive, run) / total(np.ones(len(votes)), decisive, run)
    asked = np.stack([np.bincount(place[order == bool(k)], minlength=len(at)) for k in (0, 1)])
    once = np.bincount(of_run, weights=(asked == 1).all(axis=0), minlength=number) == np.bincount(
        of_run, minlength=number
    )
    low, high = limits(accuracy, np.where(clusters > 1, error, np.nan), clusters, confidence=confidence)
    table = groups.size().reset_index()[by]
    return table.assign(
        n=n.astype(int),
        missing=(groups.size().to_numpy() - n).astype(int),
        accuracy=accuracy,
        low=low,
        high=high,
        consistent=consistent,
        kappa=kappa,
        prefers_first=first,
        both_orders=pairs.astype(int),
        complete=once & (groups.size().to_numpy() == n),
    )
