"""Sets: what the responses to one prompt are worth together. Learnt from by rewards of sets, such as their diversity.

They are put together and shown as those of a ranking are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from farm.feedback import rankings
from farm.feedback.kind import counts, paid
from farm.roles.givers import Appraiser


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts, and the mean value."""
    given = table["value"].dropna().astype(float)
    mean = round(float(given.mean()), 4) if len(given) else None
    return {"rows": len(table), **counts(table), "value": mean, "cost": paid(table)}


KIND = replace(
    rankings.KIND,
    name="sets",
    verb="appraise",
    giver=Appraiser,
    columns={"value": "of all `outputs` together, missing where there is none"},
    summary=summary,
)
