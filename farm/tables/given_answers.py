"""What `farm annotate` writes of the kinds that have no format of others: read again, and refused by row and field.

| kind | a row |
|---|---|
| rankings | instruction, outputs (a list), ranking (their positions, best first) |
| reactions | instruction, output, liked, observed, propensity |
| critiques | instruction, output, text, polarity, marks (start, end, value, aspect) |
| corrections | instruction, output, correction |
| checks | instruction, output, right |
| triplets | instruction, anchor, output_1, output_2, nearer |
| sets | instruction, outputs (a list), value |

A row without an answer has nothing in its first column of answers, and its ``status`` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.errors import UserError, shown
from farm.tables import formats, turns
from farm.tables.table_files import is_missing

Reader = Callable[[pd.DataFrame, str], pd.DataFrame]


def complete(table: pd.DataFrame, answer: str, origin: str, **missing: Any) -> pd.DataFrame:
    """With the columns that say who, and whether there is an answer, where they are not there."""
    missing = {"annotator": Path(origin).stem, "status": np.where(table[answer].isna(), "unparseable", "ok"), **missing}
    return table.assign(**{c: v for c, v in missing.items() if c not in table.columns})


def numbers(values: pd.Series, name: str, origin: str, among: tuple[float, ...] = ()) -> pd.Series:
    """float64, missing ones NaN. Raises UserError naming the row of what is no number, or not ``among`` these."""
    huge = np.array([isinstance(v, int) and v.bit_length() > 1023 for v in values], bool)  # beyond float64
    found = pd.to_numeric(values.mask(huge), errors="coerce").astype(np.float64)
    told = np.array([not (is_missing(v) or (isinstance(v, str) and v == "N/A")) for v in values], bool)
    wrong = np.flatnonzero(found.isna().to_numpy() & told)
    if wrong.size:
        raise UserError(f"{origin}: row {wrong[0] + 1}: `{name}` is not a number: {shown(values.iloc[int(wrong[0])])}")
    odd = np.flatnonzero((found.notna() & ~found.isin(among or found.unique())).to_numpy())
    if odd.size:
        raise UserError(f"{origin}: row {odd[0] + 1}: `{name}` is {found.iloc[int(odd[0])]:g}, not one of {among}")
    return found


def required(values: pd.Series, name: str, origin: str, least: float = -np.inf) -> NDArray[np.float64]:
    """As :func:`numbers`, [n]. Raises UserError, too, naming the row of a missing one, and of one below ``least``."""
    found = numbers(values, name, origin).to_numpy()
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= least)))
    if wrong.size:
        due = "a number" if least == -np.inf else f"a number from {least:g} on"
        said = "missing" if is_missing(values.iloc[wrong[0]]) else f"{found[wrong[0]]:g}"
        raise UserError(f"{origin}: row {wrong[0] + 1}: `{name}` is {said}, not {due}")
    return np.asarray(found)


def truths(values: pd.Series, name: str, origin: str) -> pd.Series:
    """True, false or None. Raises UserError naming the row."""
    out: list[bool | None] = []
    for row, value in enumerate(values, start=1):
        if is_missing(value):
            out.append(None)
        elif isinstance(value, (bool, np.bool_)) or value in (0, 1):
            out.append(bool(value))
        else:
            raise UserError(f"{origin}: row {row}: `{name}` is {shown(value)}, not true or false")
    return pd.Series(out, index=values.index, dtype=object)


def _singles(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = turns.checked(table, origin)
    formats.require(table, ["instruction", "output"], origin)
    return table


def read_reactions(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = _singles(table, origin)
    table = table.assign(liked=truths(table["liked"], "liked", origin))
    seen = table["liked"].notna()
    if "observed" in table.columns:
        said = truths(table["observed"], "observed", origin)
        table = table.assign(observed=said.where(said.notna(), seen).astype(bool))
    status = np.where(seen, "ok", "unobserved")
    return complete(table, "liked", origin, generator="", observed=seen, status=status)


def read_critiques(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = _singles(table, origin)
    for row, value in enumerate(table["text"], start=1):
        if not is_missing(value) and not isinstance(value, str):
            raise UserError(f"{origin}: row {row}: `text` is not a text: {shown(value)}")
    table = table.assign(polarity=numbers(table["polarity"], "polarity", origin))
    for row, value in enumerate(table["polarity"], start=1):
        if abs(value) > 1:
            raise UserError(f"{origin}: row {row}: `polarity` is {value:g}, not from -1 to 1")
    if "marks" in table.columns:
        pairs = enumerate(zip(table["marks"], table["output"], strict=True), start=1)
        marks = [_marks(value, output, f"{origin}: row {row}") for row, (value, output) in pairs]
        table = table.assign(marks=pd.Series(marks, index=table.index, dtype=object))
    return complete(table, "text", origin, generator="")


def _marks(value: object, output: str, where: str) -> list[dict[str, Any]]:
    found = value.tolist() if isinstance(value, np.ndarray) else [] if is_missing(value) else value
    if not isinstance(found, list):
        raise UserError(f"{where}: `marks` is {shown(value)}, not a list of objects with start, end and value")
    for mark in found:
        ends = [mark.get(name) for name in ("start", "end", "value")] if isinstance(mark, dict) else []
        if not ends or not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in ends):
            raise UserError(f"{where}: `marks` holds {shown(mark)}, not an object with start, end and value")
        if isinstance(mark["start"], float) or isinstance(mark["end"], float):
            raise UserError(f"{where}: `marks` holds {shown(mark)}, whose start and end are not whole numbers")
        if not 0 <= mark["start"] <= mark["end"] <= len(output):
            place = f"{mark['start']} to {mark['end']}"
            raise UserError(f"{where}: `marks`: {place} is no place in an output of {len(output)} characters")
    return found


def read_corrections(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = _singles(table, origin)
    for row, value in enumerate(table["correction"], start=1):
        if not is_missing(value) and not isinstance(value, str):
            raise UserError(f"{origin}: row {row}: `correction` is not a text: {shown(value)}")
    return complete(table, "correction", origin, generator="")


def read_checks(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = _singles(table, origin)
    table = table.assign(right=truths(table["right"], "right", origin))
    return complete(table, "right", origin, generator="")


def read_triplets(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = turns.checked(table, origin)
    formats.require(table, ["instruction", "anchor", "output_1", "output_2"], origin)
    table = table.assign(nearer=numbers(table["nearer"], "nearer", origin, among=(1, 1.5, 2)))
    return complete(table, "nearer", origin, generator_1="", generator_2="", generator_anchor="")


def _lists(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """With ``outputs`` as lists of two or more texts. Raises UserError naming the row."""
    table = turns.checked(table, origin)
    formats.require(table, ["instruction"], origin)
    outputs = []
    for row, given in enumerate(table["outputs"], start=1):
        texts = list(given) if isinstance(given, (list, tuple, np.ndarray)) else []
        if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{origin}: row {row}: `outputs` is {shown(given)}, not a list of two or more texts")
        outputs.append(texts)
    return table.assign(outputs=pd.Series(outputs, index=table.index, dtype=object))


def read_rankings(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = _lists(table, origin)
    rankings = []
    for row, (texts, ranking) in enumerate(zip(table["outputs"], table["ranking"], strict=True), start=1):
        listed = isinstance(ranking, (list, tuple, np.ndarray))
        if not listed and not is_missing(ranking):
            raise UserError(f"{origin}: row {row}: `ranking` is {shown(ranking)}, not a list of positions in `outputs`")
        places: list[Any] | None = list(ranking) if listed else None
        if places is not None:
            if not all(isinstance(p, (int, np.integer)) for p in places) or sorted(places) != [*range(len(texts))]:
                raise UserError(
                    f"{origin}: row {row}: `ranking` is {shown(places)}, and should hold each of 0 to "
                    f"{len(texts) - 1} once, the position of the best output first"
                )
            places = [int(p) for p in places]
        rankings.append(places)
    return complete(table.assign(ranking=pd.Series(rankings, index=table.index, dtype=object)), "ranking", origin)


def read_sets(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    table = _lists(table, origin)
    return complete(table.assign(value=numbers(table["value"], "value", origin)), "value", origin)


ANSWERS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "rankings": (("instruction", "outputs", "ranking"), read_rankings),
    "reactions": (("instruction", "output", "liked"), read_reactions),
    "critiques": (("instruction", "output", "text", "polarity"), read_critiques),
    "corrections": (("instruction", "output", "correction"), read_corrections),
    "checks": (("instruction", "output", "right"), read_checks),
    "triplets": (("instruction", "anchor", "output_1", "output_2", "nearer"), read_triplets),
    "sets": (("instruction", "outputs", "value"), read_sets),
}
"""kind -> the columns by which its table is known, and how it is read"""
