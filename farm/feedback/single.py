"""Kinds of feedback on one response by itself: what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from farm.feedback.designs import Design, singles
from farm.feedback.kind import FeedbackKind, as_shown, counts, paid
from farm.feedback.units import address_of_singles, of_singles

Facts = Callable[[pd.DataFrame], dict[str, Any]]
"""answers -> what is said of this kind beside the counts and the cost"""


def kind_of_singles(name: str, verb: str, giver: type, columns: Mapping[str, str], facts: Facts) -> FeedbackKind:
    """A kind whose rows are single responses; the arguments are those of :class:`~farm.feedback.kind.FeedbackKind`."""

    def summary(table: pd.DataFrame) -> dict[str, Any]:
        return {"rows": len(table), **counts(table), **facts(table), "cost": paid(table)}

    return FeedbackKind(
        name=name,
        verb=verb,
        giver=giver,
        columns=columns,
        designs=("singles",),
        rows=_rows,
        orient=as_shown,
        unit=of_singles,
        address=address_of_singles,
        summary=summary,
    )


def _rows(responses: pd.DataFrame, design: Design, seed: int) -> pd.DataFrame:  # noqa: ARG001
    return singles(responses)
