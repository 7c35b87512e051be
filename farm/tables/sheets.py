"""Sheets of human evaluation: two models, their completions where they are there, and the word of who evaluated.

As Tulu's and MultiPref's: ``model_a, model_b``, ``prompt, completion_a, completion_b``, ``evaluator``, ``instance_id``,
and which one is preferred, in ``preferred``, ``preference`` or ``overall_pref``. That is a word (a-is-better,
b-is-slightly-better, tie, A, model_b, ...); in ``preferred`` it may also be how far b is preferred to a: true or false,
or from 0 to 1. How clear a word is goes to ``strength``: 1, or 1/2 where it is "slightly".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from farm.base.errors import UserError, shown
from farm.tables import formats, turns
from farm.tables.table_files import is_missing

PREFERRED = ("preferred", "overall_pref", "preference")
_NAMES = {"completion_a": "output_1", "completion_b": "output_2", "response_a": "output_1", "response_b": "output_2",
          "model_a": "generator_1", "model_b": "generator_2", "evaluator": "annotator"}  # fmt: skip
_TEXTS = ({"completion_a", "completion_b"}, {"response_a", "response_b"}, {"output_1", "output_2"})
_WORD = re.compile(r"(?:model-|response-|completion-)?([ab])(?:-is)?(?:-(slightly|clearly|much|far))?(?:-better)?")
_TIES = ("tie", "same", "equal", "both", "neither")


def of_two(table: pd.DataFrame) -> pd.DataFrame:
    """A table of shares that has two texts to compare and names no models: they are called a and b."""
    there = set(table.columns)
    compares = "preferred" in there and any(both <= there for both in _TEXTS)
    if not compares or {"model_a", "model_b", "preference"} & there:
        return table
    return table.assign(model_a="a", model_b="b")


def looks_like(table: pd.DataFrame) -> bool:
    """Whether a table with ``model_a, model_b`` says by words or shares which one is preferred."""
    return any(name in table.columns for name in PREFERRED)


def read(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Pairs, with the prompt and the completions where the sheet has them. Raises UserError naming row and field."""
    name = next(c for c in PREFERRED if c in table.columns)
    said = [_verdict(value, f"{origin}: row {row}: `{name}`") for row, value in enumerate(table[name], start=1)]
    out = table.drop(columns=name).rename(columns={old: new for old, new in _NAMES.items() if new not in table.columns})
    if "prompt" in out.columns:
        prompts = formats.prompts_from(out["prompt"], "prompt", origin)
        out = out.drop(columns="prompt").assign(**turns.columns(prompts))
    for column in ("output_1", "output_2"):
        if column in out.columns:
            out[column] = formats.texts_of(out[column], column, origin)
    values = np.array([value for value, _ in said], dtype=np.float64)
    missing: dict[str, Any] = {"annotator": Path(origin).stem}
    if "instruction" not in out.columns and "instance_id" in out.columns:
        missing["instruction_id"] = out["instance_id"]
    out = out.assign(**{c: v for c, v in missing.items() if c not in out.columns}, preference=values)
    if any(strength is not None for _, strength in said):
        out["strength"] = [np.nan if strength is None else strength for _, strength in said]
    return out.assign(status=np.where(np.isnan(values), "unparseable", "ok"))


def _verdict(value: Any, where: str) -> tuple[float, float | None]:
    """The preference, and how clear it is where that is said."""
    if is_missing(value) or (isinstance(value, str) and value.strip().lower() in ("", "none", "nan", "null")):
        return np.nan, None
    if isinstance(value, (bool, np.bool_, int, float, np.number)):
        share = float(value)
        if not where.endswith("`preferred`"):
            raise UserError(f"{where} is {share:g}, not a word; map it to `preferred` if it is a share from 0 to 1")
        if not 0 <= share <= 1:
            raise UserError(f"{where} is {share:g}: say from 0 (a) to 1 (b) how far b is preferred, or a word")
        return 1 + share, None
    word = re.sub(r"[\s_-]+", "-", str(value).strip().lower())
    if word.split("-")[0] in _TIES:
        return 1.5, None
    found = _WORD.fullmatch(word)
    if found is None:
        raise UserError(f"{where} is {shown(value)}, not a word such as a-is-better, b-is-slightly-better or tie")
    graded = "better" in word
    return (1.0 if found[1] == "a" else 2.0), (0.5 if found[2] == "slightly" else 1.0) if graded else None
