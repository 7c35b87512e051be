"""Difficulties of instructions, matched by identity: an instruction set gets its own or none.

A file has the column ``instruction_difficulty`` and either ``instruction`` (texts, of any set) or a number
(``instruction_id``, ``index``, or an unnamed first column), which counts AlpacaEval's official order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import UserError


@dataclass(frozen=True)
class Difficulty:
    """Difficulties by the id of the instruction's text, or by the official number."""

    ids: NDArray[np.uint64]
    values: Floats
    official: bool
    """``ids`` are numbers of the official order, not ids of texts"""
    origin: str

    @classmethod
    def from_frame(cls, table: pd.DataFrame, origin: str) -> Difficulty:
        """Raises UserError for a missing column, a repeated instruction or a value that is no number."""
        if "instruction_difficulty" not in table:
            raise UserError(f"{origin}: the column `instruction_difficulty` is missing")
        values = pd.to_numeric(table["instruction_difficulty"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise UserError(f"{origin}: row {row + 1}: `instruction_difficulty` is not a number")
        official = "instruction" not in table
        if official:
            name = next((c for c in ("instruction_id", "index") if c in table), table.columns[0])
            numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
            if name == "instruction_difficulty" or not np.isfinite(numbers).all():
                raise UserError(f"{origin}: needs `instruction` or `instruction_id` to say whose difficulty a row is")
            ids = numbers.astype(np.uint64)
        else:
            missing = np.flatnonzero(table["instruction"].isna().to_numpy())
            if missing.size:
                raise UserError(f"{origin}: row {int(missing[0]) + 1}: `instruction` is missing")
            ids = rng.text_ids(table["instruction"].astype(str))
        # A file of the gamed baseline repeats the 805 difficulties once a prompt.
        order = np.argsort(ids, kind="stable")
        ids, values = ids[order], values[order]
        same = ids[1:] == ids[:-1]
        if (same & (values[1:] != values[:-1])).any():
            row = int(order[1:][same & (values[1:] != values[:-1])][0])
            raise UserError(f"{origin}: row {row + 1}: this instruction has another difficulty in an earlier row")
        kept = np.r_[True, ~same]
        return cls(ids[kept], values[kept], official, origin)

    def by_position(self, n: int) -> Floats:
        """The first n difficulties in the file's numbering: the original's matching, right only for complete files."""
        if n > len(self.values):
            raise UserError(f"{self.origin}: has {len(self.values)} difficulties, but a method has {n} rows")
        return self.values[:n]

    def of(self, key: NDArray[np.uint64], official: NDArray[np.int64]) -> Floats:
        """The difficulty of each instruction [n]; NaN where there is none."""
        wanted = np.where(official >= 0, official, -1).astype(np.uint64) if self.official else key
        if not len(self.ids):
            return np.full(len(wanted), np.nan)
        at = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.where(self.ids[at] == wanted, self.values[at], np.nan)
