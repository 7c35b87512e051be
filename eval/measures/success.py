"""Success by turn: the share of held-out dialogues in which the user has given a reward within so many turns.

    value of an episode = 1 if any reward of its first ``turn`` turns is above 0, else 0
    distinct share      = different responses / responses of an episode,   turns = responses of an episode

A dialogue that has ended stays as it ended: who succeeded in the second turn has succeeded within five.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd

from eval.measures.column import rows_of
from farm.base.bounds import Bounded, Count
from farm.statistics.uncertainty import SHARE, mean


@dataclass(frozen=True)
class Success(Bounded):
    """The share of dialogues that succeed within so many turns."""

    turn: Count = 1
    """within how many turns"""
    where: dict[str, Any] = field(default_factory=dict)
    """column -> the value that a row must have, or several"""
    tables: ClassVar[Sequence[str]] = ("dialogues",)

    def values(self, tables: Mapping[str, pd.DataFrame], method: str) -> pd.DataFrame:
        table = tables["dialogues"]
        table = rows_of(table, method, self.where) if self.where else table
        found = within(table, method, self.turn)
        return pd.DataFrame({"instruction": found["instruction"].to_numpy(), "value": found["success"].to_numpy()})


def within(dialogues: pd.DataFrame, method: str, turn: int) -> pd.DataFrame:
    """``instruction, episode, success`` (0 or 1), ``turns`` and ``distinct`` of each episode of a method.

    Raises:
        ValueError: for a method that had no dialogue.
    """
    rows = dialogues[(dialogues["method"] == method) & (dialogues["turn"] < turn)]
    if not len(rows):
        raise ValueError(f"{method} had no dialogue; did the experiment name a `user`?")
    episodes = rows.groupby(["instruction", "episode"], sort=True)
    said = episodes["output"].agg(["nunique", "size"])
    found = pd.DataFrame({"success": (episodes["reward"].max() > 0).astype(float), "turns": said["size"]})
    return found.assign(distinct=said["nunique"] / said["size"]).reset_index()


def by_turn(dialogues: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """One row for each method and number of turns: ``success`` with ``success_low`` and ``success_high`` (clustered by
    instruction), ``distinct``, ``turns`` and ``n_episodes``."""
    out = []
    for method in dialogues["method"].astype(str).unique():
        for turn in range(1, int(dialogues["turn"].max()) + 2):
            found = within(dialogues, method, turn)
            share = mean(found["success"], found["instruction"], confidence=confidence, bounds=SHARE)
            row = {"method": method, "turn": turn, "success": share.value}
            row |= {"success_low": share.low, "success_high": share.high, "n_episodes": len(found)}
            out.append({**row, "distinct": float(found["distinct"].mean()), "turns": float(found["turns"].mean())})
    return pd.DataFrame(out)
