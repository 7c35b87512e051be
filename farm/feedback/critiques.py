"""Critiques: what is good and bad about a response, in words and marks. Learnt from by refinement and span rewards."""

from __future__ import annotations

from typing import Any

import pandas as pd

from farm.feedback.single import kind_of_singles
from farm.roles.givers import Critic


def facts(table: pd.DataFrame) -> dict[str, Any]:
    """The mean polarity, and how many marks a response has."""
    given = table.loc[table["status"] == "ok", "polarity"].astype(float)
    found: dict[str, Any] = {"mean_polarity": round(float(given.mean()), 4) if len(given) else None}
    if "marks" in table.columns:
        found["marks_a_response"] = round(float(table["marks"].map(lambda m: 0 if m is None else len(m)).mean()), 2)
    return found


KIND = kind_of_singles(
    name="critiques",
    verb="critique",
    giver=Critic,
    columns={
        "text": "the critique in words",
        "polarity": "from -1 to 1",
        "marks": "a list of {start, end, value, aspect}: characters of the output, what they are worth, and in what",
    },
    facts=facts,
)
