"""What a kind of feedback is: one instance a file of this room, found by the name of its file.

    rows = kind.build(responses, design, seed)               # what is asked about
    shown, undo = kind.orient(rows, seed)                    # in the order in which it is put before the giver
    answers = undo(giver.VERB(shown, seed=seed, replicate=0))

:func:`farm.asking.ask.ask` does the last two lines. `farm annotate`, `farm run` and Python read the same definition: a
new kind is its file here and its protocol in farm/roles/givers.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import pandas as pd

import farm.feedback
from farm.base import rng
from farm.base.errors import UserError, nearest
from farm.feedback.designs import Design, require_design

Undo = Callable[[pd.DataFrame], pd.DataFrame]
"""from answers on rows as they were shown to answers on the rows as they were given"""


@dataclass(frozen=True)
class FeedbackKind:
    """One kind of feedback."""

    name: str
    verb: str
    """the method of a giver: ``giver.verb(shown, seed=, replicate=)`` adds the columns, status and usage"""
    giver: type
    """who has the verb: a protocol of farm/roles/givers.py"""
    columns: Mapping[str, str]
    """what a giver adds, and what it says; the first column is the answer"""
    designs: tuple[str, ...]
    """which responses may be put together (farm/feedback/designs.py), the default first"""
    rows: Callable[[pd.DataFrame, Design, int], pd.DataFrame]
    """responses, design, seed -> the rows to ask about; :meth:`build` checks the design first"""
    orient: Callable[[pd.DataFrame, int], tuple[pd.DataFrame, Undo]]
    """rows, seed -> the rows in a drawn order of their outputs; nothing is drawn where a row has one output"""
    unit: Callable[[pd.DataFrame], rng.Ids]
    """ids [n] of what is asked about, whatever the order of the outputs: of draws, and of what is asked again"""
    address: Callable[[pd.DataFrame], rng.Ids]
    """ids [n] of all that an answer may depend on, order and generators included: of the cache"""
    summary: Callable[[pd.DataFrame], dict[str, Any]]
    """what came out, as plain data"""

    @property
    def answer(self) -> str:
        """The column that holds the answer."""
        return next(iter(self.columns))

    def build(self, responses: pd.DataFrame, design: Design | str | None = None, seed: int = 0) -> pd.DataFrame:
        """The rows to ask about: of responses (``instruction, output``), or of rows that are such already.

        Raises:
            UserError: for a design that this kind has not, or responses of which it makes no row.
        """
        found = design if isinstance(design, Design) else Design(design or "")
        return self.rows(responses, require_design(found, self.name, self.designs), seed)


def kinds() -> dict[str, FeedbackKind]:
    """Every kind by its name: those of this room, and of packages that others name under the entry point
    ``farm.feedback``."""
    return dict(_kinds())


@cache
def _kinds() -> Mapping[str, FeedbackKind]:
    others = [importlib.import_module(entry.value) for entry in entry_points(group="farm.feedback")]
    packages = [farm.feedback, *others]
    files = [
        importlib.import_module(f"{p.__name__}.{m.name}") for p in packages for m in pkgutil.iter_modules(p.__path__)
    ]
    return {file.KIND.name: file.KIND for file in files if hasattr(file, "KIND")}


def kind(name: str) -> FeedbackKind:
    """The kind of a name.

    Raises:
        UserError: with the nearest name, where there is none.
    """
    if name not in _kinds():
        raise UserError(f"there is no feedback `{name}`; {nearest(name, _kinds())}")
    return _kinds()[name]


def as_shown(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Undo]:  # noqa: ARG001
    """The orientation of rows with one output."""
    return rows, lambda answers: answers


def counts(table: pd.DataFrame) -> dict[str, Any]:
    """What a summary says of every kind: statuses, and why most of the rows without an answer have none."""
    said = table["failure"].dropna() if "failure" in table.columns else pd.Series(dtype=object)
    status = {str(k): int(v) for k, v in table["status"].value_counts().items()}
    return {"status": status, **({"failure": str(said.mode()[0])} if len(said) else {})}


def paid(table: pd.DataFrame) -> float:
    """US dollars spent now: rows from the store were paid for earlier."""
    now = table[~table["cached"].astype(bool)] if "cached" in table.columns else table
    return round(float(now["price"].sum()), 6)
