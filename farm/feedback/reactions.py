"""Reactions: a response is liked or not, or nothing is said. Learnt from by KTO and reaction models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from farm.feedback.designs import Design, singles
from farm.feedback.kind import FeedbackKind, as_shown, counts, paid
from farm.feedback.units import address_of_singles, of_singles
from farm.roles.givers import Reactor


def _rows(responses: pd.DataFrame, design: Design, seed: int) -> pd.DataFrame:  # noqa: ARG001
    return singles(responses)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts, and the share of likes: among the reactions seen, and with each weighted by 1 / propensity."""
    seen = table[table["observed"].astype(bool)]
    liked = seen["liked"].astype(float)
    facts: dict[str, Any] = {"observed": len(seen), "liked": round(float(liked.mean()), 4) if len(seen) else None}
    if len(seen):
        weight = 1 / seen["propensity"].to_numpy(np.float64)
        facts["liked_by_inverse_propensity"] = round(float((liked * weight).sum() / weight.sum()), 4)
    return {"rows": len(table), **counts(table), **facts, "cost": paid(table)}


KIND = FeedbackKind(
    name="reactions",
    verb="react",
    giver=Reactor,
    columns={
        "liked": "true or false, missing where nothing was said",
        "observed": "whether anything was said",
        "propensity": "how likely that was",
    },
    designs=("singles",),
    rows=_rows,
    orient=as_shown,
    unit=of_singles,
    address=address_of_singles,
    summary=summary,
)
