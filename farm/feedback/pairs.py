"""Pairs: which of two responses is preferred. Learnt from by reward models, the DPO family and games."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from farm.base import rng
from farm.feedback.designs import DESIGNS, Design, chosen
from farm.feedback.kind import FeedbackKind, Undo, counts, paid
from farm.feedback.units import PAIRED, beside
from farm.roles.givers import Annotator
from farm.statistics import uncertainty
from farm.tables.records import PairIds, shown_in_random_order
from farm.tables.turns import row_ids

SHARES = {"coins": "coin", "flipped": "flipped", "consistent": "consistent", "from_store": "cached"}
"""shares of all verdicts in a summary, and the columns that they are of"""


def _rows(responses: pd.DataFrame, design: Design, seed: int) -> pd.DataFrame:
    if "output_1" in responses.columns:
        return responses
    return chosen(responses, design.name, per_instruction=design.per_instruction, score=design.score, seed=seed)


def _orient(pairs: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Undo]:
    return shown_in_random_order(pairs, seed)


def _unit(pairs: pd.DataFrame) -> rng.Ids:
    return PairIds(pairs).pair


def _address(pairs: pd.DataFrame) -> rng.Ids:
    texts = (rng.text_ids(pairs[c]) for c in ("output_1", "output_2"))
    return beside(rng.combine(row_ids(pairs), *texts), pairs, PAIRED)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts of statuses, ties and coins, the preference for the first output, costs, and who was asked.

    ``prefers_first`` counts ties as one half, leaves out rows without a verdict, and has a 95 % interval clustered by
    instruction.
    """
    ok = table[table["status"] == "ok"]
    score = 2.0 - ok["preference"].to_numpy(dtype=np.float64)
    shares = {
        name: round(float(known.astype(bool).mean()), 4)
        for name, column in SHARES.items()
        if column in table.columns and len(known := table[column].dropna())
    }
    by = ok.assign(score=score).groupby("annotator")["score"].agg(["size", "mean"])
    tokens = {c: int(table[c].sum()) for c in ("input_tokens", "output_tokens") if table[c].any()}
    return {
        "verdicts": len(table),
        **counts(table),
        "identical_outputs": int((ok["output_1"] == ok["output_2"]).sum()),
        "ties": int((ok["preference"] == 1.5).sum()),
        "prefers_first": _interval(score, ok["instruction"]),
        **shares,
        **tokens,
        "cost": paid(table),
        "annotators": {
            str(name): {"verdicts": int(row["size"]), "prefers_first": round(float(row["mean"]), 4)}
            for name, row in by.iterrows()
        },
    }


def _interval(score: np.ndarray, clusters: pd.Series) -> dict[str, float | int | None]:
    """The share with its interval; None where it is not known."""
    found = uncertainty.mean(score, clusters.astype(str), bounds=uncertainty.SHARE)
    known = {"estimate": found.value, "low": found.low, "high": found.high}
    return {"n": found.n, **{name: None if np.isnan(value) else round(value, 4) for name, value in known.items()}}


KIND = FeedbackKind(
    name="pairs",
    verb="annotate",
    giver=Annotator,
    columns={
        "preference": "1 the first, 2 the second, 1.5 a tie, missing where there is no verdict",
        "p_first": "the annotator's own probability of preferring the first, where it is known",
    },
    designs=(*DESIGNS, "adjacent"),
    rows=_rows,
    orient=_orient,
    unit=_unit,
    address=_address,
    summary=summary,
)
