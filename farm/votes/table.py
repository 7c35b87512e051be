"""Votes: many annotators on the same pairs (cross-annotations), and a judge's verdicts on them, from many layouts.

Every layout becomes one table with a row a vote:

``item``
    the pair, the same in every file whatever the order of its outputs (texts, or an id column)
``annotator``
``first``
    share of the preference for the canonical first output: 1, 0, 1/2 for a tie, NaN where missing, and where the two
    outputs are the same text: nothing tells them apart. The canonical order sorts the two sides, so that rows and files
    that have a pair in different orders agree.
``shown``
    the same for the output that was shown first: the row's first, unless ``swapped`` or ``shown_first`` says otherwise
``given``, ``flipped``, ``sides``
    the same as the file has it, whether that is the other way round than the canonical order, and the column that says
    which output is which ("" where none does: the canonical order is the file's own then)

and where known ``model_1, model_2`` (canonical), ``length_1, length_2, list_1, list_2``, ``prompt`` (what items share),
``price, time``, and every other column of the file under its own name.

Rows that repeat pair, annotator, ``seed`` and ``replicate`` are one answer looked up again (draws are keyed by these,
and the store keeps answers under them): they count once.

Read: AlpacaEval annotations and cross-annotations (``preference`` or ``human_preference``; texts or ``pair_id``), crowd
battles (``id, winner`` with left / right / tie), PandaLM (``annotator1..3`` and ``*_result``), LLMBar judge runs
(``winner`` in the original order and ``swapped``), argument pairs (``label`` a1 / a2 / equal), annotated pairs 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import OptionError, UserError, nearest
from farm.tables import annotated_pairs, vote_layouts
from farm.tables.formats import merge_input, preferences, read_table, require

_SIDES = (
    ("output_1", "output_2"),
    ("left", "right"),
    ("generator_1", "generator_2"),
    ("model_a", "model_b"),
    ("model_x", "model_y"),
    ("arg1", "arg2"),
)
_MODELS = (("generator_1", "generator_2"), ("left", "right"), ("model_a", "model_b"), ("model_x", "model_y"))
_ITEM = ("pair_id", "id", "idx", "comparison_id", "item", "question_id")
_ANNOTATOR = ("annotator", "worker", "evaluator", "human_annotator_index", "annotator_index", "judge")
_PROMPT = ("prompt", "instruction", "topic")
_VERDICT = ("preference", "human_preference", "winner", "label")

_LLMFAO = {"text": "instruction", "result_x": "output_1", "result_y": "output_2"}
"""what a pair's texts are called there"""


def contains_list(text: str) -> bool:
    """Whether a text has list items: bullets (* • -), numbers ("1." or "1)") or letters at the start of a line."""
    return _LIST.search(text) is not None


_LIST = re.compile(
    r"^\s*(?:[*•-]\s*[^\w]*\w|\d+[.)]\s*[^\w]*\w|[a-zA-Z][.)]\s+[^\w]*\w)",
    re.MULTILINE,
)


def read_votes(path: str | Path, *, item: Sequence[str] = ()) -> pd.DataFrame:
    """The votes of a file; ``item`` as in :func:`from_table`. Raises UserError naming file, row and field."""
    path = Path(path)
    if annotated_pairs.looks_like(path):
        return from_table(annotated_pairs.rows(path), str(path), item=item)
    table = merge_input(read_table(path))
    if not len(table):
        raise UserError(f"{path}: holds no vote")
    wide = vote_layouts.annotator_columns(table)
    results = [str(c) for c in table.columns if str(c).endswith("_result")]
    if wide or ("preference" not in table and results):
        if not any(c in table for c in _ITEM):
            table = table.assign(idx=np.arange(len(table)))
        table = vote_layouts.a_row_a_vote(table, wide or results[:1])
    return from_table(table, str(path), annotator=path.name.split(".")[0], item=item)


def with_texts(judge: Any, pairs: Path, *, item: Sequence[str] = ()) -> pd.DataFrame:
    """Votes that name their pairs by ``pair_id`` or ``id``, with the texts of a file of pairs: these are the key then.

    Raises:
        UserError: for a file without such an id, a repeated id, or one that has no texts.
    """
    if not isinstance(judge, (str, Path)):
        raise OptionError("`pairs` joins texts to the verdicts of a file")
    path = Path(judge)
    rows, texts = read_table(path), read_table(pairs)
    if set(_LLMFAO) <= set(texts):
        texts = texts.rename(columns=_LLMFAO)
    texts = merge_input(texts)
    require(texts, [c for c in ("instruction", "output_1", "output_2") if c in texts], pairs)
    by = next((c for c in ("pair_id", "id") if c in rows and c in texts), "pair_id")
    for table, origin in ((rows, path), (texts, pairs)):
        if by not in table:
            raise OptionError(f"{origin}: the column `{by}` is missing; `pairs` joins verdicts and texts by it")
    repeated = texts[by].duplicated().to_numpy()
    if repeated.any():
        at = int(repeated.argmax())
        raise UserError(f"{pairs}: row {at + 1}: `{by}` {texts[by][at]} occurs twice")
    lacking = ~rows[by].isin(texts[by]).to_numpy()
    if lacking.any():
        at = int(lacking.argmax())
        raise UserError(f"{path}: row {at + 1}: `{by}` {rows[by][at]} has no texts in {pairs}")
    own = [c for c in texts.columns if c == by or c not in rows]
    merged = rows.merge(texts[own], on=by, how="left", validate="many_to_one")
    return from_table(merged.drop(columns=by), str(path), annotator=path.name.split(".")[0], item=item)


def from_table(
    table: pd.DataFrame, origin: str, *, annotator: str = "annotator", item: Sequence[str] = ()
) -> pd.DataFrame:
    """Votes from a table with one row a vote (see the module's layouts).

    Args:
        annotator: who voted, where no column says it.
        item: the columns that name the pair, where it is not the texts or an id alone.
    """
    verdict = next((c for c in _VERDICT if c in table), None)
    if verdict is None:
        raise UserError(
            f"{origin}: no verdict: needs one of {', '.join(_VERDICT)}; {nearest('preference', table.columns)}"
        )
    raw = _verdicts(table[verdict], verdict, origin)
    if np.isnan(raw).all():
        raise UserError(f"{origin}: no row has a verdict in `{verdict}`")
    sides = next(((a, b) for a, b in _SIDES if a in table and b in table), None)
    out = table.reset_index(drop=True).copy()
    out["item"], flipped = _items(out, sides, origin, item)
    name = next((c for c in _ANNOTATOR if c in table), None)
    if name is not None and out[name].isna().any():
        raise UserError(f"{origin}: row {int(out[name].isna().to_numpy().argmax()) + 1}: `{name}` is missing")
    out["annotator"] = out[name].astype(str) if name else annotator
    swapped = _shown_swapped(table)
    same = np.zeros(len(out), dtype=bool)
    if sides == ("output_1", "output_2"):
        same = (table["output_1"].astype(str) == table["output_2"].astype(str)).to_numpy(bool)
    out["first"] = np.where(same, np.nan, np.where(flipped, 1 - raw, raw))
    out["given"] = raw
    out["flipped"] = flipped
    out["sides"] = sides[0] if sides is not None else ""
    out["shown"] = np.where(swapped, 1 - raw, raw)
    # Which canonical output was shown first: two rows of an item differ in it when both orders were asked.
    out["reversed"] = flipped ^ swapped
    _sided(out, table, flipped)
    prompt = next((c for c in _PROMPT if c in table), None)
    if prompt:
        out["prompt"] = out[prompt]
    for ours, theirs in (("price", "price_per_example"), ("time", "time_per_example")):
        if theirs in out and ours not in out:
            out[ours] = pd.to_numeric(out[theirs], errors="coerce")
    if {"seed", "replicate"} <= set(out.columns):
        again = out.duplicated(["item", "annotator", "seed", "replicate", "reversed"]).to_numpy()
        out = out[~again].reset_index(drop=True)
    return out


def _shown_swapped(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether the row's second output was shown first although the verdict refers to the row's order."""
    if "swapped" in table:
        return np.array([str(v).lower() in ("1", "true", "1.0") for v in table["swapped"]], dtype=bool)
    if "shown_first" in table:
        return (pd.to_numeric(table["shown_first"], errors="coerce") == 2).to_numpy(bool, na_value=False)
    return np.zeros(len(table), dtype=bool)


def _verdicts(values: pd.Series, name: str, origin: str) -> Floats:
    """The share for the first output as the row has it."""
    if name == "preference" or (name == "human_preference"):
        return 2 - preferences(values, origin)
    return vote_layouts.shares(values, name, origin)


def _items(
    table: pd.DataFrame, sides: tuple[str, str] | None, origin: str, given: Sequence[str]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The key of each row's pair, and whether the row stands in the non-canonical order."""
    n = len(table)
    flipped = np.zeros(n, dtype=bool)
    for column in (*(sides or ()), *(("instruction",) if "instruction" in table else ())):
        if table[column].isna().any():
            raise UserError(f"{origin}: row {int(np.flatnonzero(table[column].isna())[0]) + 1}: `{column}` is missing")
    if sides is not None:
        one, two = (rng.text_ids(table[s].astype(str)) for s in sides)
        flipped = one > two
    name = next((c for c in _ITEM if c in table), None)
    parts = list(given) or ([] if name is None else [c for c in ("subset", "topic") if c in table] + [name])
    for column in given:
        if column not in table:
            raise UserError(
                f"{origin}: there is no column `{column}` to name the item; {nearest(column, table.columns)}"
            )
    if parts:
        for column in given or parts[-1:]:
            if table[column].isna().any():
                row = int(np.flatnonzero(table[column].isna())[0]) + 1
                raise UserError(f"{origin}: row {row}: `{column}` is missing")
        key = table[parts[0]].astype(str)
        for part in parts[1:]:
            key = key + "\x1f" + table[part].astype(str)
        return key.to_numpy(dtype=object), flipped
    if sides is None or "instruction" not in table:
        raise UserError(f"{origin}: nothing tells the pairs apart: needs an id ({', '.join(_ITEM)}) or the texts")
    instruction = rng.text_ids(table["instruction"].astype(str))
    return rng.combine(instruction, rng.unordered(one, two)), flipped


def _sided(out: pd.DataFrame, table: pd.DataFrame, flipped: NDArray[np.bool_]) -> None:
    """Columns of the two sides in canonical order: models, lengths, lists."""

    def put(name: str, first: Any, second: Any) -> None:
        a, b = np.asarray(first), np.asarray(second)
        out[f"{name}_1"], out[f"{name}_2"] = np.where(flipped, b, a), np.where(flipped, a, b)

    models = next(((a, b) for a, b in _MODELS if a in table and b in table), None)
    if models:
        put("model", table[models[0]].astype(str), table[models[1]].astype(str))
    texts = "output_1" in table and "output_2" in table
    lengths = next(((a, b) for a, b in (("len_1", "len_2"), ("output_1_len", "output_2_len")) if a in table), None)
    if lengths:
        put(
            "length", *(pd.to_numeric(table[c], errors="coerce").to_numpy(np.float64, na_value=np.nan) for c in lengths)
        )
    elif texts:
        put("length", *([len(str(t)) for t in table[c]] for c in ("output_1", "output_2")))
    if texts:
        put("list", *([contains_list(str(t)) for t in table[c]] for c in ("output_1", "output_2")))
