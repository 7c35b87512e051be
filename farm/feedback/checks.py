"""Checks: a response is right or wrong. Learnt from by verified rewards."""

from __future__ import annotations

from typing import Any

import pandas as pd

from farm.feedback.single import kind_of_singles
from farm.roles.givers import Checker


def facts(table: pd.DataFrame) -> dict[str, Any]:
    """The share that is right."""
    given = table["right"].dropna().astype(float)
    return {"right": round(float(given.mean()), 4) if len(given) else None}


KIND = kind_of_singles(
    name="checks",
    verb="check",
    giver=Checker,
    columns={
        "right": "true or false, missing where it cannot be told",
    },
    facts=facts,
)
