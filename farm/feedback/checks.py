"""Checks: a response is right or wrong. Learnt from by verified rewards."""

from __future__ import annotations

from typing import Any

import pandas as pd

from farm.feedback.designs import Design, singles
from farm.feedback.kind import FeedbackKind, as_shown, counts, paid
from farm.feedback.units import address_of_singles, of_singles
from farm.roles.givers import Checker


def _rows(responses: pd.DataFrame, design: Design, seed: int) -> pd.DataFrame:  # noqa: ARG001
    return singles(responses)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts, and the share that is right."""
    told = table["right"].dropna().astype(float)
    facts = {"right": round(float(told.mean()), 4) if len(told) else None}
    return {"rows": len(table), **counts(table), **facts, "cost": paid(table)}


KIND = FeedbackKind(
    name="checks",
    verb="check",
    giver=Checker,
    columns={
        "right": "true or false, missing where it cannot be told",
    },
    designs=("singles",),
    rows=_rows,
    orient=as_shown,
    unit=of_singles,
    address=address_of_singles,
    summary=summary,
)
