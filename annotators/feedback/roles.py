"""What gives feedback other than pairs; the same for simulated people and for language models (annotators/llm).

Each takes a table and returns it with the columns of its record (farm/tables/records.py) and, as annotations have,
``annotator, status, seed, replicate`` and the usage columns. A verdict depends on (seed, replicate, texts) only.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from farm.roles import config
from farm.tables.records import USAGE_COLUMNS
from farm.tables.turns import kept


@runtime_checkable
class Rater(Protocol):
    """Gives every output a score."""

    def rate(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Adds ``score``, NaN where there is none, and a column for each aspect."""


@runtime_checkable
class Reactor(Protocol):
    """Likes an output or not, or says nothing."""

    def react(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Adds ``liked`` (None where nothing was said), ``observed`` and ``propensity``."""


@runtime_checkable
class Ranker(Protocol):
    """Puts the outputs to one instruction in order."""

    def rank(self, groups: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Of a table with ``instruction`` and ``outputs`` (lists): adds ``ranking``, positions from best to worst."""


@runtime_checkable
class Critic(Protocol):
    """Says in words what is good and bad about an output."""

    def critique(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """Adds ``text``, ``polarity`` from -1 to 1, and where it points at parts ``spans``: (start, end, value)."""


ROLES: dict[str, Any] = {"ratings": Rater, "reactions": Reactor, "rankings": Ranker, "critiques": Critic}
"""Kinds of feedback and who gives them; all have their YAML among the annotators."""
config.ROOM.update(dict.fromkeys(ROLES.values(), "annotators"))


def said_by(name: str, outputs: pd.DataFrame, seed: int, replicate: int, **columns: Any) -> pd.DataFrame:
    """``outputs`` with the columns of feedback that cost nothing."""
    free = dict.fromkeys(USAGE_COLUMNS, 0.0)
    table = outputs.assign(**columns, annotator=name)
    if "status" not in columns:
        table["status"] = "ok"
    return table.assign(seed=seed, replicate=replicate, **free)


def both_sides(pairs: pd.DataFrame) -> pd.DataFrame:
    """The 2 n outputs of n pairs, first outputs first."""
    sides = []
    for k in ("1", "2"):
        columns = {**{name: pairs[name] for name in kept(pairs)}, "output": pairs[f"output_{k}"]}
        if f"generator_{k}" in pairs.columns:
            columns["generator"] = pairs[f"generator_{k}"]
        sides.append(pd.DataFrame(columns))
    return pd.concat(sides, ignore_index=True)


def implied(scores: pd.Series, pairs: int) -> np.ndarray:
    """The preferences [n] that 2 n scores of both sides imply: for the higher one, a tie where they are equal."""
    values = scores.to_numpy(dtype=np.float64)
    return np.asarray(1.5 + 0.5 * np.sign(values[pairs:] - values[:pairs]))
