"""Corrections: a response and what its giver makes of it. Learnt from by imitation and by divergence rewards."""

from __future__ import annotations

from typing import Any

import pandas as pd

from farm.feedback.designs import Design, singles
from farm.feedback.kind import FeedbackKind, as_shown, counts, paid
from farm.feedback.units import address_of_singles, of_singles
from farm.roles.givers import Corrector


def _rows(responses: pd.DataFrame, design: Design, seed: int) -> pd.DataFrame:  # noqa: ARG001
    return singles(responses)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts, and how many responses were changed."""
    given = table[table["correction"].notna()]
    changed = float((given["correction"] != given["output"]).mean()) if len(given) else None
    facts = {"changed": None if changed is None else round(changed, 4)}
    return {"rows": len(table), **counts(table), **facts, "cost": paid(table)}


KIND = FeedbackKind(
    name="corrections",
    verb="correct",
    giver=Corrector,
    columns={
        "correction": "the corrected response, equal to the output where nothing is to be mended",
    },
    designs=("singles",),
    rows=_rows,
    orient=as_shown,
    unit=of_singles,
    address=address_of_singles,
    summary=summary,
)
