"""Triplets: which of two responses is nearer to an anchor. Learnt from by measures of similarity and diversity."""

from __future__ import annotations

from typing import Any

import pandas as pd

from farm.base import rng
from farm.feedback.designs import Design, triples
from farm.feedback.kind import FeedbackKind, Undo, counts, paid
from farm.feedback.units import PAIRED, beside
from farm.roles.givers import Matcher
from farm.tables.records import PairIds, shown_in_random_order
from farm.tables.turns import row_ids


def _rows(responses: pd.DataFrame, design: Design, seed: int) -> pd.DataFrame:
    return triples(responses, design.per_instruction, seed)


def _orient(triplets: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Undo]:
    return shown_in_random_order(triplets, seed)


def _unit(triplets: pd.DataFrame) -> rng.Ids:
    return rng.combine(PairIds(triplets).pair, rng.text_ids(triplets["anchor"]))


def _address(triplets: pd.DataFrame) -> rng.Ids:
    texts = (rng.text_ids(triplets[c]) for c in ("anchor", "output_1", "output_2"))
    return beside(rng.combine(row_ids(triplets), *texts), triplets, (*PAIRED, "generator_anchor"))


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts, and the share of triplets whose first output is nearer, a tie one half."""
    given = table["nearer"].dropna().astype(float)
    facts = {"first_is_nearer": round(float((2.0 - given).mean()), 4) if len(given) else None}
    return {"rows": len(table), **counts(table), **facts, "cost": paid(table)}


KIND = FeedbackKind(
    name="triplets",
    verb="match",
    giver=Matcher,
    columns={
        "nearer": "1 the first, 2 the second, 1.5 a tie, missing where there is no answer",
        "p_first": "the giver's own probability of saying 1, where it is known",
    },
    designs=("triples",),
    rows=_rows,
    orient=_orient,
    unit=_unit,
    address=_address,
    summary=summary,
)
