"""Annotation files as the rows that a leaderboard needs: who, on what, which verdict, how long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.published.official import official_ids
from eval.published.orientation import common
from farm.base import rng
from farm.base.errors import UserError
from farm.tables.formats import preferences, require_labels

COLUMNS = (
    "method",
    "annotator",
    "baseline",
    "second",
    "key",
    "instruction_id",
    "preference",
    "status",
    "length_1",
    "length_2",
    "row",
)
"""method, annotator, baseline and second (the generators of both outputs) are names; ``key`` is the id of the
instruction, ``instruction_id`` its place in AlpacaEval's official order (-1 if it is none of these); lengths are
characters (NaN where unknown); ``row`` is the row of the file, from 1. A ``dataset`` column is carried along where the
file has it."""

Places = NDArray[np.int64]


class Names(NamedTuple):
    """A column of names as codes into a list."""

    codes: Places
    names: list[str]


Part = dict[str, Any]
"""The rows of one file: the columns of :data:`COLUMNS` as arrays [n], or :class:`Names`."""


def from_table(table: pd.DataFrame, origin: Path | str) -> Part:
    """The rows of an annotation table (see :data:`COLUMNS`); texts are replaced with ids and lengths."""
    n = len(table)
    if not n:
        raise UserError(f"{origin}: holds no annotation")
    if "instruction" in table:
        key = rng.text_ids(table["instruction"])
        ids = official_ids(key)
    else:
        ids = _whole(table["instruction_id"], origin)
        key = ids.astype(np.uint64)
    if "instruction" in table and "instruction_id" in table:
        ids = np.where(ids < 0, _whole(table["instruction_id"], origin), ids)
    named = ("model_dir", "method", "generator_2")
    for name in [name for name in named if name in table][:1]:
        require_labels(table, name, origin)
    out: Part = {
        "method": _category(table, named, n),
        "annotator": _category(table, ("annotator",), n),
        "baseline": _category(table, ("generator_1",), n),
        "second": _category(table, ("generator_2",), n),
        "key": key,
        "instruction_id": ids,
        "preference": preferences(table["preference"], origin),
        "status": _category(table, ("status",), n),
    }
    for side in ("1", "2"):
        out[f"length_{side}"] = _lengths(table, side, n, origin)
    out["row"] = np.arange(1, n + 1)
    if "dataset" in table:
        out["dataset"] = _category(table, ("dataset",), n)
    return out


def _category(table: pd.DataFrame, names: tuple[str, ...], n: int) -> Names:
    for name in names:
        if name in table:
            values = table[name]
            if isinstance(values.dtype, pd.CategoricalDtype):
                values = values.astype(values.cat.categories.dtype)
            codes, found = pd.factorize(values.fillna("").astype(str))
            return Names(codes.astype(np.int64), [str(v) for v in found])
    return Names(np.zeros(n, np.int64), [""])


def baseline_of(parts: Sequence[Part]) -> str | None:
    """The one generator that all rows have (:func:`eval.published.orientation.common`)."""
    pairs = set()
    for part in parts:
        one, two = part["baseline"], part["second"]
        cells = np.unique(one.codes * len(two.names) + two.codes).tolist()
        pairs |= {(one.names[c // len(two.names)], two.names[c % len(two.names)]) for c in cells}
    return common(pairs) if pairs else None


def turned_to(part: Part, baseline: str) -> Part:
    """The rows of a part with this baseline first; a method that is named by its generator is the other one then."""
    one, two = part["baseline"], part["second"]
    is_first, is_second = (np.array([n == baseline for n in names.names], bool)[names.codes] for names in (one, two))
    turn = is_second & ~is_first
    if not turn.any():
        return part
    first, second, method = (np.array(names.names, object)[names.codes] for names in (one, two, part["method"]))
    return part | {
        "method": _named(np.where(turn & (method == second), first, method)),
        "baseline": _named(np.where(turn, second, first)),
        "second": _named(np.where(turn, first, second)),
        "preference": np.where(turn, 3 - part["preference"], part["preference"]),
        "length_1": np.where(turn, part["length_2"], part["length_1"]),
        "length_2": np.where(turn, part["length_1"], part["length_2"]),
    }


def _named(values: NDArray[np.object_]) -> Names:
    codes, names = pd.factorize(values)
    return Names(codes.astype(np.int64), [str(n) for n in names])


def subset(part: Part, kept: NDArray[np.bool_]) -> Part:
    """The rows of a part where ``kept`` is true."""
    return {k: Names(v.codes[kept], v.names) if isinstance(v, Names) else v[kept] for k, v in part.items()}


def frame(parts: Sequence[Part]) -> pd.DataFrame:
    """Parts as one table; names become categories, sorted."""
    columns: dict[str, Any] = {}
    for name, first in parts[0].items():
        if not all(name in p for p in parts):
            continue
        if not isinstance(first, Names):
            columns[name] = np.concatenate([p[name] for p in parts])
            continue
        used = [(p[name], np.bincount(p[name].codes, minlength=len(p[name].names)) > 0) for p in parts]
        union = sorted({n for names, seen in used for n, is_seen in zip(names.names, seen, strict=True) if is_seen})
        place = {n: k for k, n in enumerate(union)}
        codes = [np.array([place.get(n, -1) for n in names.names], np.int64)[names.codes] for names, _ in used]
        columns[name] = pd.Categorical.from_codes(np.concatenate(codes), union)
    return pd.DataFrame(columns)


def _whole(values: pd.Series, origin: Path | str) -> NDArray[np.int64]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.isnan(numbers) | (numbers != np.round(numbers)) | (numbers < 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(f"{origin}: row {row + 1}: `instruction_id` = {values.iloc[row]} is not a whole number from 0")
    return numbers.astype(np.int64)


def _lengths(table: pd.DataFrame, side: str, n: int, origin: Path | str) -> NDArray[np.float64]:
    for name in (f"output_{side}_len", f"len_{side}", f"length_{side}"):
        if name in table:
            numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            if (numbers < 0).any():
                row = int(np.flatnonzero(numbers < 0)[0])
                raise UserError(f"{origin}: row {row + 1}: `{name}` = {numbers[row]:g} is not a length")
            return numbers
    if f"output_{side}" not in table:
        return np.full(n, np.nan)
    return np.fromiter((len(t) if isinstance(t, str) else np.nan for t in table[f"output_{side}"]), np.float64, n)
