"""Corrections: a response and what its giver makes of it. Learnt from by imitation and by divergence rewards."""

from __future__ import annotations

from typing import Any

import pandas as pd

from farm.feedback.single import kind_of_singles
from farm.roles.givers import Corrector


def facts(table: pd.DataFrame) -> dict[str, Any]:
    """The share of responses that were changed."""
    given = table[table["correction"].notna()]
    changed = float((given["correction"] != given["output"]).mean()) if len(given) else None
    return {"changed": None if changed is None else round(changed, 4)}


KIND = kind_of_singles(
    name="corrections",
    verb="correct",
    giver=Corrector,
    columns={
        "correction": "the corrected response, equal to the output where nothing is to be mended",
    },
    facts=facts,
)
