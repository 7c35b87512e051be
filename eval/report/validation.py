"""The simulated judge's single verdicts beside people's (or the gold annotator's) on the same pairs."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from eval.judges.validate import validate
from eval.judges.validation import Validation
from eval.report import wording
from eval.report.folder import RunFolder
from eval.report.tables import Cell, Column, Table, share, sortable
from farm.base.errors import UserError
from farm.statistics.uncertainty import Estimate
from farm.votes.table import from_table

ROUNDS = 200
_NEEDED = {"instruction", "output_1", "output_2", "preference"}
_BIASES = {"longer": "Prefers the longer answer", "lists": "Prefers lists", "first shown": "Prefers the first shown"}


def section(run: RunFolder) -> dict[str, Any] | None:
    """Agreement beside the ceiling, kappa and habits; nothing where no other annotator judged the same pairs."""
    other = next((r for r in ("humans", "gold") if r in run.judged), None)
    judge = run.judged.get("judge")
    if other is None or judge is None or not all(set(t.columns) >= _NEEDED for t in (judge, run.judged[other])):
        return None
    try:
        found = validate(
            _votes(judge, "judge"),
            _votes(run.judged[other], other),
            rounds=ROUNDS,
            seed=run.seed,
            confidence=run.confidence,
        )
    except UserError:  # no verdicts, or no pair in both
        return None
    return {
        "table": _table(found, wording.role(other)),
        "other": wording.role(other),
        "pairs": wording.count(found.items),
    }


def _votes(rows: pd.DataFrame, role: str) -> pd.DataFrame:
    # One annotator a role: the judge of a pair may be drawn from a pool, and pools are compared as a whole.
    table = rows.drop(columns=[c for c in ("method", "sample", "id", "pair_id") if c in rows]).assign(annotator=role)
    return from_table(table, role)


def _table(v: Validation, other: str) -> Table:
    table = Table(
        f"The simulated judge beside the {other}",
        [
            Column("Measure", numeric=False),
            Column("Judge"),
            Column(other.capitalize()),
            Column("Difference", "judge minus the other, on the same pairs"),
        ],
        sortable=False,
    )
    several = v.ceiling.agreement.n > 0
    ceiling = share(v.ceiling.agreement) if several else Cell("–", ("one vote a pair",))
    difference = _points(v.difference) if several else Cell("–")
    table.rows.append([Cell("Agreement with one vote, %"), share(v.agreement), ceiling, difference])
    table.rows.append([Cell("Cohen’s kappa"), _of(v.kappa, v.kappa_n), Cell("–"), Cell("–")])
    table.rows.append([Cell("Kappa of decisive verdicts"), _of(v.kappa_half, v.kappa_half_n), Cell("–"), Cell("–")])
    for row in v.biases.to_dict(orient="records"):
        if not row["n"]:
            continue
        estimate = wording.interval(100 * row["low"], 100 * row["high"], 1, signed=True)
        small = (*((estimate,) if estimate else ()), f"n {wording.count(row['n'])}")
        cell = Cell(wording.number(100 * row["difference"], 1, signed=True), small, sortable(row["difference"]))
        table.rows.append(
            [Cell(f"{_BIASES[row['bias']]}, %"), _number(100 * row["judge"], 1), _number(100 * row["human"], 1), cell]
        )
    if v.position.both_orders:
        table.rows.append([Cell("Consistent in both orders, %"), share(v.position.consistent), Cell("–"), Cell("–")])
    if not math.isnan(v.worth_votes):
        beyond = math.isinf(v.worth_votes)
        worth = _of(v.most_votes if beyond else v.worth_votes, v.worth_votes_n, more=" or more" if beyond else "")
        table.rows.append([Cell("Worth so many votes"), worth, Cell("–"), Cell("–")])
    gain = _of(v.ppi_gain, v.correlation_n, more="×")
    table.rows.append([Cell("PPI++ gain at most"), gain, Cell("–"), Cell("–")])
    return table


def _of(value: float, n: int, more: str = "") -> Cell:
    """A value that has no interval, and how many items or votes it is of; "too few" where these say nothing."""
    small = (f"n {wording.count(n)}",)
    if not math.isfinite(value):
        return Cell("too few", small)
    return Cell(wording.number(value, 2) + more, small, sortable(value))


def _number(value: float, digits: int = 2) -> Cell:
    return Cell(wording.number(value, digits), sort=sortable(value))


def _points(e: Estimate) -> Cell:
    shown = wording.interval(100 * e.low, 100 * e.high, 1, signed=True)
    return Cell(wording.number(100 * e.value, 1, signed=True), (shown,) if shown else (), sortable(e.value))
