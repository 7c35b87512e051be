"""Votes of several people as annotations: what names the pair, who voted, and which generator is the baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from eval.published.orientation import turned_to
from eval.ratings import battles
from farm.base.errors import OptionError, UserError, nearest
from farm.tables import formats

POOLED = "everyone"
"""the annotator of a pool"""
_WHO = ("annotator", "worker", "evaluator", "judge")


def as_annotations(table: pd.DataFrame, origin: str, item: Sequence[str] = ()) -> pd.DataFrame:
    """Annotations of a table of annotations or of battles (``model_a, model_b, winner`` and their relatives).

    Args:
        item: columns that name what was judged together, in the place of the instruction.

    Raises:
        UserError: naming the column, or the file and the row.
    """
    if item:
        table = named_by(table, item, origin)
    if "preference" not in table.columns and "winner" in table.columns:
        scored = battles.scored(table, origin)
        sides = {"generator_1": scored["_first"], "generator_2": scored["_second"]}
        table = table.assign(**sides, preference=2 - scored["_score"])
        who = next((c for c in _WHO if c in table.columns), None)
        if who is not None:
            table = table.assign(annotator=table[who])
    if "preference" in table.columns and not {"instruction", "instruction_id", "messages"} & set(table.columns):
        raise OptionError(f"{origin}: neither `instruction` nor `instruction_id` is there; name the column that tells"
                          " the items apart with `item`")  # fmt: skip
    return formats.as_annotations(table, origin)


def named_by(table: pd.DataFrame, item: Sequence[str], origin: str) -> pd.DataFrame:
    """The table with these columns, joined, as its ``instruction``: rows that have them in common are one item."""
    for column in item:
        if column not in table.columns:
            raise UserError(
                f"{origin}: there is no column `{column}` to name the item; {nearest(column, table.columns)}"
            )
        formats.require_labels(table, column, origin)
    names = table[list(item)].astype(str).agg("\x1f".join, axis=1)
    return table.drop(columns=["instruction_id", "turns"], errors="ignore").assign(instruction=names)


def against(annotations: pd.DataFrame, baseline: str, origin: str) -> pd.DataFrame:
    """The comparisons with one generator, which then stands first in every row.

    Raises:
        UserError: where no row has it.
    """
    formats.require(annotations, ["generator_1", "generator_2"], origin)
    turned = turned_to(annotations, baseline)
    kept = turned["generator_1"].astype(str).to_numpy() == baseline
    if not kept.any():
        known = np.unique(annotations[["generator_1", "generator_2"]].astype(str).to_numpy())
        raise UserError(f"{origin}: no row compares with the baseline `{baseline}`; {nearest(baseline, known)}")
    return turned[kept].reset_index(drop=True)
