"""Reactions: a response is liked or not, or nothing is said. Learnt from by KTO and reaction models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from farm.feedback.single import kind_of_singles
from farm.roles.givers import Reactor


def facts(table: pd.DataFrame) -> dict[str, Any]:
    """The share of likes: among the reactions seen, and with each weighted by 1 / propensity."""
    seen = table[table["observed"].astype(bool)]
    liked = seen["liked"].astype(float)
    found: dict[str, Any] = {"observed": len(seen), "liked": round(float(liked.mean()), 4) if len(seen) else None}
    if len(seen):
        weight = 1 / seen["propensity"].to_numpy(np.float64)
        found["liked_by_inverse_propensity"] = round(float((liked * weight).sum() / weight.sum()), 4)
    return found


KIND = kind_of_singles(
    name="reactions",
    verb="react",
    giver=Reactor,
    columns={
        "liked": "true or false, missing where nothing was said",
        "observed": "whether anything was said",
        "propensity": "how likely that was",
    },
    facts=facts,
)
