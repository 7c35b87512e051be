"""Rankings: the responses to one prompt from best to worst. Learnt from by listwise methods and curricula.

The outputs are shown in a drawn order, so that a preference for the first place favours none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from farm.base import rng
from farm.feedback.designs import Design, groups
from farm.feedback.kind import FeedbackKind, Undo, counts, paid
from farm.feedback.units import SINGLE, beside, of_lists
from farm.roles.givers import Ranker
from farm.tables.turns import row_ids


def _rows(responses: pd.DataFrame, design: Design, seed: int) -> pd.DataFrame:  # noqa: ARG001
    return groups(responses)


def _orient(lists: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Undo]:
    """A ranking, and scores where given, are of the outputs as they stand in the table, whatever was shown."""
    keys = row_ids(lists)
    orders = [
        rng.permutation(rng.combine(keys[i], rng.text_ids(texts)), seed, "order of presentation")
        for i, texts in enumerate(lists["outputs"])
    ]
    columns = [c for c in ("outputs", "generators") if c in lists.columns]
    shown = lists.assign(**{c: _each(lists[c], orders, lambda of, order: [of[k] for k in order]) for c in columns})

    def undo(answers: pd.DataFrame) -> pd.DataFrame:
        given: dict[str, Any] = {c: lists[c] for c in columns}
        if "ranking" in answers.columns:
            given["ranking"] = _each(answers["ranking"], orders, lambda of, order: [int(order[k]) for k in of])
        if "scores" in answers.columns and "scores" not in lists.columns:
            given["scores"] = _each(
                answers["scores"], orders, lambda of, order: [of[int(k)] for k in np.argsort(order)]
            )
        return answers.assign(**given)

    return shown, undo


def _each(lists: pd.Series, orders: list[Any], change: Any) -> pd.Series:
    """Each list of a column changed by its order; None where there is none."""
    both = zip(lists, orders, strict=True)
    changed = [change(list(of), order) if isinstance(of, (list, tuple, np.ndarray)) else None for of, order in both]
    return pd.Series(changed, index=lists.index, dtype=object)


def _unit(lists: pd.DataFrame) -> rng.Ids:
    return rng.combine(row_ids(lists), of_lists(lists["outputs"], ordered=False))


def _address(lists: pd.DataFrame) -> rng.Ids:
    ids = rng.combine(row_ids(lists), of_lists(lists["outputs"], ordered=True))
    if "generators" in lists.columns:
        ids = rng.combine(ids, of_lists(lists["generators"], ordered=True))
    return beside(ids, lists, SINGLE)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts, and how many outputs a ranking has."""
    ranked = table["ranking"].dropna()
    return {
        "rows": len(table),
        **counts(table),
        "outputs_a_ranking": round(float(ranked.map(len).mean()), 2) if len(ranked) else None,
        "cost": paid(table),
    }


KIND = FeedbackKind(
    name="rankings",
    verb="rank",
    giver=Ranker,
    columns={"ranking": "positions in `outputs` from best to worst, missing where there is none"},
    designs=("groups",),
    rows=_rows,
    orient=_orient,
    unit=_unit,
    address=_address,
    summary=summary,
)
