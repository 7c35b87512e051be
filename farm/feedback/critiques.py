"""Critiques: what is good and bad about a response, in words and marks. Learnt from by refinement and span rewards."""

from __future__ import annotations

from typing import Any

import pandas as pd

from farm.feedback.designs import Design, singles
from farm.feedback.kind import FeedbackKind, as_shown, counts, paid
from farm.feedback.units import address_of_singles, of_singles
from farm.roles.givers import Critic


def _rows(responses: pd.DataFrame, design: Design, seed: int) -> pd.DataFrame:  # noqa: ARG001
    return singles(responses)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts, the mean polarity, and how many marks a response has."""
    given = table.loc[table["status"] == "ok", "polarity"].astype(float)
    facts: dict[str, Any] = {"mean_polarity": round(float(given.mean()), 4) if len(given) else None}
    if "marks" in table.columns:
        facts["marks_a_response"] = round(float(table["marks"].map(lambda m: 0 if m is None else len(m)).mean()), 2)
    return {"rows": len(table), **counts(table), **facts, "cost": paid(table)}


KIND = FeedbackKind(
    name="critiques",
    verb="critique",
    giver=Critic,
    columns={
        "text": "the critique in words",
        "polarity": "from -1 to 1",
        "marks": "a list of {start, end, value, aspect}: characters of the output, what they are worth, and in what",
    },
    designs=("singles",),
    rows=_rows,
    orient=as_shown,
    unit=of_singles,
    address=address_of_singles,
    summary=summary,
)
