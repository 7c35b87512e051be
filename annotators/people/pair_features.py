"""What programmatic annotators see of a table of pairs: each distinct text is looked at once, for all of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import UserError, nearest
from farm.roles.protocols import Features
from farm.tables.given_answers import required
from farm.tables.records import PairIds
from farm.tables.turns import prompts_of

Rows = NDArray[np.int64] | slice


class PairFeatures:
    """The features of both sides of n pairs, in the canonical order of :class:`~farm.tables.records.PairIds`.

    In the canonical order a pair and its swap look the same, so a difference (first - second) of a pair is exactly
    that of its swap. All arrays that a method returns have the length of ``rows``.

    Raises:
        UserError: when ``features`` returns another number of rows than it was given texts, or no numbers.
    """

    def __init__(self, features: Features, pairs: pd.DataFrame, ids: PairIds) -> None:
        self.ids = ids
        self._pairs = pairs
        n = len(pairs)
        sides = rng.combine(np.concatenate([ids.instruction] * 2), np.concatenate([ids.first, ids.second]))
        codes, self.text_ids = pd.factorize(sides)
        place = np.empty(len(self.text_ids), dtype=np.int64)
        place[codes[::-1]] = np.arange(2 * n)[::-1]  # where each distinct text stands first
        self._first = np.where(ids.swapped, codes[n:], codes[:n])
        self._second = np.where(ids.swapped, codes[:n], codes[n:])
        texts = np.concatenate([_objects(pairs["output_1"]), _objects(pairs["output_2"])])
        prompts = prompts_of(pairs)
        table = features([prompts[row] for row in place % max(n, 1)], texts[place].tolist())
        if len(table) != len(place):
            raise UserError(f"{type(features).__name__} returned {len(table)} rows for {len(place)} texts")
        self._table = table
        self._columns: dict[str, Floats] = {}
        self._own: dict[str, Floats] = {}

    def require(self, names: Iterable[str], purpose: str) -> None:
        """Raise UserError when a named feature is not there."""
        for name in names:
            if name not in self._table.columns:
                raise UserError(
                    f"{purpose} needs the feature `{name}`, which is not there; {nearest(name, self._table.columns)}"
                )

    def sides(self, name: str, rows: Rows) -> tuple[Floats, Floats]:
        """A feature of the first and of the second output."""
        if name not in self._columns:
            values = self._table[name].to_numpy(dtype=np.float64)
            if not np.isfinite(values).all():
                raise UserError(f"the feature `{name}` of {int((~np.isfinite(values)).sum())} texts is not a number")
            self._columns[name] = values
        column = self._columns[name]
        return column[self._first[rows]], column[self._second[rows]]

    def difference(self, name: str, rows: Rows) -> Floats:
        """A feature of the first output minus that of the second."""
        first, second = self.sides(name, rows)
        return first - second

    def text_ids_of(self, rows: Rows) -> tuple[rng.Ids, rng.Ids]:
        """The ids of (instruction, output) of the first and of the second output."""
        return self.text_ids[self._first[rows]], self.text_ids[self._second[rows]]

    def own(self, generator: str, rows: Rows) -> Floats:
        """1 where only the first output is by ``generator``, -1 where only the second is, else 0."""
        if generator not in self._own:
            first, second = (
                (self._column(f"generator_{i}", "self-enhancement") == generator).to_numpy(dtype=np.float64)
                for i in (1, 2)
            )
            self._own[generator] = np.where(self.ids.swapped, second - first, first - second)
        return self._own[generator][rows]

    def agreement(self, rows: Rows) -> Floats:
        """How much more the first output agrees with the user: columns ``agreement_1/2``, or a feature of that name."""
        if "agreement_1" not in self._pairs.columns and "agreement" in self._table.columns:
            return self.difference("agreement", rows)
        shown = [self._column(f"agreement_{i}", "sycophancy") for i in (1, 2)]  # the file's sides may be exchanged
        first, second = (required(side, "agreement_1/2", "sycophancy")[rows] for side in shown)
        return np.where(self.ids.swapped[rows], second - first, first - second)

    def shown_first(self, rows: Rows) -> Floats:
        """1 where the canonically first output stands first in the row, else -1."""
        return np.where(self.ids.swapped[rows], -1.0, 1.0)

    def _column(self, name: str, purpose: str) -> pd.Series:
        if name not in self._pairs.columns:
            raise UserError(f"{purpose} needs the column `{name}`, which the pairs do not have")
        return self._pairs[name]


def _objects(column: pd.Series) -> NDArray[np.object_]:
    return np.asarray(column.to_numpy(dtype=object))
