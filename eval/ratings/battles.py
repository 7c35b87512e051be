"""Battles: who met whom, and who won. Arena's ``model_a, model_b, winner``, its relatives, and annotations.

Understood winners: ``model_a``/``a``/``left``/``1``, ``model_b``/``b``/``right``/``2``, and anything that begins with
``tie`` (with ``draw`` and ``equal``). The two sides may be called ``model_a, model_b`` or ``left, right``. Annotations
(``generator_1, generator_2, preference``) are battles too; a soft preference is a soft result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import files
from farm.base.arrays import Floats
from farm.base.errors import UserError, nearest, shown
from farm.tables.formats import preferences, read_table
from farm.tables.table_files import header

Codes = NDArray[np.int64]

SIDES = (("model_a", "model_b"), ("left", "right"), ("generator_1", "generator_2"))
_RESULT = {"model_a": 1.0, "a": 1.0, "left": 1.0, "1": 1.0, "model_b": 0.0, "b": 0.0, "right": 0.0, "2": 0.0}


@dataclass(frozen=True)
class Battles:
    """n battles between M models."""

    models: tuple[str, ...]
    first: Codes
    second: Codes
    score: Floats
    """[n] share of the win that the first takes: 1, 0, 1/2 for a tie, or soft"""
    table: pd.DataFrame
    """the rows they came from (for clusters)"""
    missing: int = 0
    """rows left out because they have no result"""

    def __len__(self) -> int:
        return len(self.score)


def is_battles(path: Path) -> bool:
    """Whether a file holds battles rather than annotations (recognised by its columns)."""
    files.check(path)
    columns = set(_columns(path))
    return "winner" in columns and any(a in columns and b in columns for a, b in SIDES)


def _columns(path: Path) -> Sequence[str]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        try:
            return [str(n) for n in parquet.read_schema(path).names]
        except Exception as error:
            raise UserError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error
    if ".csv" in path.suffixes:
        return header(path)
    head = b""
    if path.suffix in (".json", ".jsonl"):
        with files.refusals(path, "read"), path.open("rb") as file:
            head = file.read(4096)
    known = [name for pair in SIDES for name in pair] + ["winner", "preference"]
    return [name for name in known if f'"{name}"'.encode() in head]


def read_battles(paths: Sequence[Path]) -> Battles:
    """The battles of some files. Raises UserError with file and row for a winner that is not understood."""
    parts = []
    for path in paths:
        table = read_table(path)
        parts.append(scored(table, str(path)))
    return from_table(pd.concat(parts, ignore_index=True), ", ".join(map(str, paths)), is_scored=True)


def from_table(table: pd.DataFrame, origin: str, *, is_scored: bool = False) -> Battles:
    """Battles of a table with sides and ``winner`` (or ``preference``)."""
    if not is_scored:
        table = scored(table, origin)
    seen = table["_score"].notna().to_numpy()
    kept = table[seen].reset_index(drop=True)
    if not len(kept):
        raise UserError(f"{origin}: no battle has a result")
    both = pd.concat([kept["_first"], kept["_second"]], ignore_index=True)
    codes, models = pd.factorize(both, sort=True)
    first, second = codes[: len(kept)].astype(np.int64), codes[len(kept) :].astype(np.int64)
    score = kept["_score"].to_numpy(np.float64)
    rest = kept.drop(columns=["_first", "_second", "_score"])
    return Battles(tuple(str(m) for m in models), first, second, score, rest, int((~seen).sum()))


def scored(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """The table with ``_first``, ``_second`` (names) and ``_score``, the share of the win that the first takes."""
    sides = next(((a, b) for a, b in SIDES if a in table and b in table), None)
    if sides is None or not ("winner" in table or "preference" in table):
        lacking = "winner" if sides else "model_a"
        raise UserError(f"{origin}: the column `{lacking}` is missing; {nearest(lacking, table.columns)}")
    first, second = (table[s].astype(object) for s in sides)
    for name, side in zip(sides, (first, second), strict=True):
        if side.isna().any():
            raise UserError(f"{origin}: row {int(np.flatnonzero(side.isna())[0]) + 1}: `{name}` is missing")
    first, second = first.astype(str), second.astype(str)
    same = np.flatnonzero((first == second).to_numpy())
    if same.size:
        raise UserError(f"{origin}: row {int(same[0]) + 1}: `{first.iloc[int(same[0])]}` meets itself")
    if "winner" in table:
        score = _winner(table["winner"], origin)
    else:
        score = 2 - preferences(table["preference"], origin)
    return table.assign(_first=first, _second=second, _score=score)


def _winner(winner: pd.Series, origin: str) -> Floats:
    codes, names = pd.factorize(winner.astype(object))
    values = np.empty(len(names) + 1)
    values[-1] = np.nan
    for k, name in enumerate(names):
        word = str(name).strip().lower()
        if word.startswith(("tie", "draw", "equal")):
            values[k] = 0.5
        elif word in _RESULT:
            values[k] = _RESULT[word]
        else:
            row = int(np.flatnonzero(codes == k)[0])
            raise UserError(f"{origin}: row {row + 1}: `winner` = {shown(name)} is neither model_a, model_b nor tie")
    return values[codes]
