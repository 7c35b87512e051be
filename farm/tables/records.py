"""What is recorded: instructions, outputs, pairs and annotations; the kinds of feedback are in farm/feedback.

Inside the program they are columns of a pandas table (cheap for millions of rows); the pydantic classes below define
a row. A table may have more columns than its row defines; they are carried along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from farm.base import rng
from farm.tables import turns

Status = Literal["ok", "unparseable", "refused", "error", "unobserved"]
"""What became of one request for feedback. Only ``ok`` rows carry a preference; the others are counted and reported."""


class Row(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Pair(Row):
    instruction: str
    output_1: str
    output_2: str
    generator_1: str = ""
    generator_2: str = ""


class Annotation(Pair):
    """One verdict on one pair. AlpacaEval's orientation: 1 means the first output is preferred, 2 the second."""

    annotator: str
    preference: float | None = Field(ge=1, le=2)
    """1.5 is a tie; None is no verdict, and ``status`` says why"""
    p_first: float | None = Field(default=None, ge=0, le=1)
    """the annotator's own probability of preferring the first, where it is known"""
    status: Status = "ok"
    seed: int = 0
    replicate: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    price: float = 0.0
    """US dollars"""
    seconds: float = 0.0


class PairIds:
    """The ids of the rows of a pair table, from their texts alone.

    ``pair`` is the same for both orders of the outputs; ``swapped`` tells which rows stand in the non-canonical
    order, so that a draw made for the unordered pair can be turned into a draw for the row.
    """

    def __init__(self, pairs: pd.DataFrame) -> None:
        self.instruction = turns.row_ids(pairs)
        self.first = rng.text_ids(pairs["output_1"])
        self.second = rng.text_ids(pairs["output_2"])
        self.pair = rng.combine(self.instruction, rng.unordered(self.first, self.second))
        self.swapped: NDArray[np.bool_] = self.first > self.second
        self.identical: NDArray[np.bool_] = self.first == self.second


def unanswered(annotations: pd.DataFrame) -> tuple[int, dict[str, int]]:
    """How many rows there are whose outputs differ, and the statuses of those without a verdict, by number.

    Identical outputs are ties without a question: they say nothing of the annotator.
    """
    asked = annotations[annotations["output_1"] != annotations["output_2"]]
    gone = asked.loc[(asked["status"] != "ok") | asked["preference"].isna(), "status"]
    return len(asked), {str(status): int(count) for status, count in gone.value_counts().items()}


VERDICT_COLUMNS = frozenset(Annotation.model_fields) - frozenset(Pair.model_fields) | {
    "coin",
    "flipped",
    "consistent",
    "cached",
    "shown_first",
    "propensity",
    "user_group",
}
"""The columns that annotators and wrappers add to a table of pairs."""

USAGE_COLUMNS = ("input_tokens", "output_tokens", "price", "seconds")


def annotation_table(
    pairs: pd.DataFrame,
    annotator: str | NDArray[np.object_],
    preference: NDArray[np.float64],
    p_first: NDArray[np.float64],
    *,
    seed: int,
    replicate: int | rng.Ids = 0,
    status: NDArray[np.object_] | str = "ok",
    **usage: NDArray[np.float64] | float,
) -> pd.DataFrame:
    """An annotation table: the columns of ``pairs`` and those of :class:`Annotation`, rows in the order of ``pairs``.

    ``preference`` and ``p_first`` have shape [n]; NaN means missing.
    """
    unknown = set(usage) - set(USAGE_COLUMNS)
    if unknown:
        raise TypeError(f"unknown usage columns {sorted(unknown)}")
    table = pairs.copy()
    table["annotator"] = annotator
    table["preference"] = preference
    table["p_first"] = p_first
    table["status"] = status
    table["seed"] = seed
    table["replicate"] = replicate
    for column in USAGE_COLUMNS:
        table[column] = usage.get(column, 0.0)
    return table


def swapped(table: pd.DataFrame, where: NDArray[np.bool_]) -> pd.DataFrame:
    """The table with the sides of the rows in ``where`` exchanged: columns like ``output_1``, ``output_1_len`` with
    their ``_2``, and the verdicts.

    Applying it twice gives the table back. Presenting a pair in a random order and undoing it afterwards is two calls.
    """
    out = table.copy()
    for column in table.columns:
        if (other := re.sub(r"_1(?=_|$)", "_2", column)) != column and other in table.columns:
            out[column] = table[column].where(~where, table[other])
            out[other] = table[other].where(~where, table[column])
    for column in ("preference", "nearer"):
        if column in table.columns:
            out[column] = np.where(where, 3.0 - table[column], table[column])
    if "p_first" in table.columns:
        out["p_first"] = np.where(where, 1.0 - table["p_first"], table["p_first"])
    if "shown_first" in table.columns:
        out["shown_first"] = np.where(where, 3 - table["shown_first"], table["shown_first"])
    return out


def shown_in_random_order(
    pairs: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, Callable[[pd.DataFrame], pd.DataFrame]]:
    """The pairs, each in an order drawn for it, and what brings the verdicts back into the order of ``pairs``.

    So a bias for the first place turns into noise instead of favouring one side. The draw is keyed by the pair; column
    ``shown_first`` says which output (1 or 2) the annotator saw first.
    """
    ids = PairIds(pairs)
    shown_swapped = (rng.uniform(seed, "order of presentation", ids.pair) < 0.5) != ids.swapped
    pairs = pairs.drop(columns="shown_first", errors="ignore")  # of an earlier annotation

    def undo(found: pd.DataFrame) -> pd.DataFrame:
        return swapped(found.assign(shown_first=found.get("shown_first", 1)), shown_swapped)

    return swapped(pairs, shown_swapped), undo


def in_random_order(annotate: Callable[[pd.DataFrame], pd.DataFrame], pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Verdicts on pairs that are shown in a drawn order (:func:`shown_in_random_order`)."""
    shown, undo = shown_in_random_order(pairs, seed)
    return undo(annotate(shown))


def unannotated(rows: pd.DataFrame, further: Collection[str] = ()) -> pd.DataFrame:
    """The rows without the answers that earlier ones left in the table; ``further`` are columns of answers, too."""
    left = {*VERDICT_COLUMNS, *further, *(["user"] if "annotator" in rows.columns else [])}
    return rows.drop(columns=[c for c in rows.columns if c in left])


def merged(pairs: pd.DataFrame, parts: Sequence[tuple[NDArray[np.int64], pd.DataFrame]]) -> pd.DataFrame:
    """One annotation table from annotations of disjoint groups of rows of ``pairs``, given with their row numbers.

    A column that only some parts have is false, 0 or missing in the others.
    """
    new: dict[str, NDArray[Any]] = {}
    for _, table in parts:
        for column in table.columns:
            if column not in pairs.columns and column not in new:
                new[column] = _empty([t[column] for _, t in parts if column in t.columns], len(parts), len(pairs))
    for rows, table in parts:
        for column, values in new.items():
            if column in table.columns:
                values[rows] = table[column].to_numpy(dtype=values.dtype)
    return pairs.assign(**new)


def _empty(columns: list[pd.Series], parts: int, n: int) -> NDArray[Any]:
    kinds = [c.dtype for c in columns]
    if any(not isinstance(k, np.dtype) or k.kind not in "biuf" for k in kinds):
        return np.full(n, None, dtype=object)
    common = np.result_type(*kinds)
    if common.kind == "f" and len(columns) < parts:
        return np.full(n, np.nan, dtype=common)
    return np.zeros(n, dtype=common)
