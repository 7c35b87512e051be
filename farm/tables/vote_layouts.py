"""Layouts in which people's votes are published, and the words for a verdict: the same wherever votes are read.

| layout | its columns |
|---|---|
| one column an annotator (PandaLM) | ``annotator1, ...``; ``response1, response2``; both models in ``cmp_key`` |
| AlpacaEval's people | ``human_preference``, ``human_annotator_index`` |
| crowds (LLMFAO) | ``left, right, winner``, ``worker`` |
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from farm.base.arrays import Floats
from farm.base.errors import UserError, shown

_WORDS = dict.fromkeys(("1", "a1", "a", "left", "model_a", "first", "model_x"), 1.0)
_WORDS |= dict.fromkeys(("2", "a2", "b", "right", "model_b", "second", "model_y"), 0.0)
_WORDS |= dict.fromkeys(("0", "1.5", "tie", "equal", "draw", "same"), 0.5)
_NOTHING = ("", "garbage", "none", "nan", "null", "error", "invalid", "n/a", "not_applicable")
"""words for "no verdict": missing, never a tie"""
_TEXTS = {"response1": "output_1", "response2": "output_2"}
_CROWD = {"left": "model_a", "right": "model_b", "worker": "judge"}


def shares(values: pd.Series, name: str, origin: str) -> Floats:
    """Which of two is preferred, in words, as the share of the first: 1, 0, 1/2 for a tie, NaN for no verdict; [n].

    Raises:
        UserError: naming the row, for any other word.
    """
    found, names = pd.factorize(values.astype(object))
    scores = np.full(len(names) + 1, np.nan)
    for k, word in enumerate(names):
        key = str(word).strip().lower().removesuffix(".0")
        key = "tie" if key.startswith("tie") else key
        if key in _NOTHING:
            continue
        if key not in _WORDS:
            row = int(np.flatnonzero(found == k)[0])
            raise UserError(f"{origin}: row {row + 1}: `{name}` is {shown(word)}, not model_a, model_b or tie")
        scores[k] = _WORDS[key]
    return scores[found]


def annotator_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table with one an annotator."""
    return [str(c) for c in table.columns if re.fullmatch(r"annotator_?\d+", str(c))]


def a_row_a_vote(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """A table with one column an annotator as one with a row a vote, ``annotator`` and ``winner``, annotator by
    annotator. A response that a spreadsheet took for a number or for true is its text again."""
    base = table.drop(columns=columns).rename(columns=_TEXTS)
    for side in base.columns.intersection(list(_TEXTS.values())):
        base[side] = [str(v) if isinstance(v, (bool, int, float)) and v == v else v for v in base[side].astype(object)]
    if "cmp_key" in base and not {"generator_1", "model_a", "left", "model_x"} & set(base.columns):
        models = base["cmp_key"].astype(str).str.split("_", expand=True)
        if models.shape[1] == 2 and models.notna().all().all():
            base = base.assign(generator_1=models[0], generator_2=models[1])
    each = [base.assign(annotator=str(c).removesuffix("_result"), winner=table[c].to_numpy()) for c in columns]
    return pd.concat(each, ignore_index=True)


def as_annotations(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Votes of the first two layouts with ``preference`` and ``annotator``; any other table as it is.

    Raises:
        UserError: naming the row, for a verdict that is none.
    """
    if {"preference", "winner"} & set(table.columns):
        return table
    columns = annotator_columns(table)
    if columns:
        for column in columns:
            shares(table[column], column, origin)  # an error names the row of the file
        long = a_row_a_vote(table, columns)
        return long.assign(preference=2 - shares(long["winner"], "winner", origin)).drop(columns="winner")
    if "human_preference" in table.columns:
        names = {"human_preference": "preference"}
        if "annotator" not in table.columns:
            names["human_annotator_index"] = "annotator"
        return table.rename(columns=names)
    return table


def as_battles(table: pd.DataFrame) -> pd.DataFrame:
    """Votes of a crowd under the names of battles; any other table as it is."""
    if not {"left", "right", "winner"} <= set(table.columns) or {"model_a", "model_b"} & set(table.columns):
        return table
    names = {old: new for old, new in _CROWD.items() if new not in table.columns}
    return table.drop(columns=["model_x", "model_y"], errors="ignore").rename(columns=names)
