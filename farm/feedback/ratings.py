"""Ratings: a score of one response, and of its aspects where they are given. Learnt from by rating models."""

from __future__ import annotations

from typing import Any

import pandas as pd

from farm.feedback.single import kind_of_singles
from farm.roles.givers import Rater


def facts(table: pd.DataFrame) -> dict[str, Any]:
    """The mean score and its standard deviation."""
    score = table["score"].dropna().astype(float)
    return {"mean": round(float(score.mean()), 4), "sd": round(float(score.std()), 4)} if len(score) else {}


KIND = kind_of_singles(
    name="ratings",
    verb="rate",
    giver=Rater,
    columns={
        "score": "a number, the mean of the aspects where there are any; missing where there is no rating",
    },
    facts=facts,
)
