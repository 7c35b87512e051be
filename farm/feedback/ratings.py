"""Ratings: a score of one response, and of its aspects where they are given. Learnt from by rating models."""

from __future__ import annotations

from typing import Any

import pandas as pd

from farm.feedback.designs import Design, singles
from farm.feedback.kind import FeedbackKind, as_shown, counts, paid
from farm.feedback.units import address_of_singles, of_singles
from farm.roles.givers import Rater


def _rows(responses: pd.DataFrame, design: Design, seed: int) -> pd.DataFrame:  # noqa: ARG001
    return singles(responses)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts, the mean score and its standard deviation."""
    score = table["score"].dropna().astype(float)
    known = {"mean": round(float(score.mean()), 4), "sd": round(float(score.std()), 4)} if len(score) else {}
    return {"rows": len(table), **counts(table), **known, "cost": paid(table)}


KIND = FeedbackKind(
    name="ratings",
    verb="rate",
    giver=Rater,
    columns={
        "score": "a number, the mean of the aspects where there are any; missing where there is no rating",
    },
    designs=("singles",),
    rows=_rows,
    orient=as_shown,
    unit=of_singles,
    address=address_of_singles,
    summary=summary,
)
