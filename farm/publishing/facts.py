"""What a run knows of itself, as far as a card says it: from the files of its folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from farm.experiments import run_tables
from farm.tables.records import PairIds
from farm.votes import agreement


@dataclass(frozen=True)
class RunFacts:
    """A run folder, read for a card."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    costs: dict[str, Any]
    board: pd.DataFrame
    """the leaderboard, or an empty table"""
    accuracy: pd.DataFrame
    """how often each model agrees with whom, or an empty table"""

    @property
    def name(self) -> str:
        return str(self.config.get("name") or self.folder.name)

    def spec(self, *keys: str) -> str:
        """What the configuration says under a key of a key ..., as YAML; empty where it says nothing."""
        found: Any = self.config
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return "" if found is None else yaml.safe_dump(public(found), sort_keys=False, allow_unicode=True).strip()


def of_run(folder: Path) -> RunFacts:
    """The facts of a run folder. Raises UserError where it is none, or a file of it is damaged."""
    config = run_tables.settings(folder)[1]

    def table(name: str) -> pd.DataFrame:
        path = folder / name
        return run_tables.read(path) if path.is_file() else pd.DataFrame()

    return RunFacts(
        folder,
        config,
        run_tables.mapping(folder / "environment.json"),
        run_tables.costs(folder / "costs.json"),
        table("leaderboard.json"),
        table("accuracy.json"),
    )


def public(said: Any) -> Any:
    """A part of a configuration without what is of this machine alone: of a file's absolute place its name is left."""
    if isinstance(said, dict):
        return {key: public(value) for key, value in said.items()}
    if isinstance(said, (list, tuple)):
        return [public(value) for value in said]
    if isinstance(said, str) and said.startswith(("/", "~")) and "\n" not in said:
        return Path(said).name
    return said


def agreements(table: pd.DataFrame) -> list[str]:
    """What a table of pairs says of how far those who gave it agree, a sentence each."""
    if not {"output_1", "output_2", "preference", "instruction"} <= set(table.columns):
        return []
    if table[["instruction", "output_1", "output_2"]].isna().any(axis=None):
        return []
    said, ids = [], PairIds(table)
    first = 2 - pd.to_numeric(table["preference"]).to_numpy(np.float64)
    first = np.where(ids.swapped, 1 - first, first)
    seen = ~np.isnan(first) & ~ids.identical
    alpha, several = agreement.alpha_of_votes(ids.pair[seen], first[seen])
    if several:
        said.append(f"{several:,} pairs have several votes; Krippendorff's alpha of them is {alpha:.3f}.")
    if {"gold_1", "gold_2"} <= set(table.columns):
        one, two = (pd.to_numeric(table[c], errors="coerce").to_numpy(np.float64) for c in ("gold_1", "gold_2"))
        gap = one - two
        gap = np.where(ids.swapped, -gap, gap)
        decided = seen & (first != 0.5) & (gap != 0) & ~np.isnan(gap)
        if decided.any():
            right = float(((first > 0.5) == (gap > 0))[decided].mean())
            said.append(f"{100 * right:.1f} % of {int(decided.sum()):,} verdicts are for the output of the higher true"
                        " utility.")  # fmt: skip
    return said


def answers(table: pd.DataFrame) -> str:
    """How many rows of feedback have an answer, and why the others have none."""
    if "status" not in table.columns:
        return f"{len(table):,}"
    status = table["status"].value_counts()
    others = ", ".join(f"{count:,} {name}" for name, count in status.items() if name != "ok")
    return f"{int(status.get('ok', 0)):,} of {len(table):,}" + (f" ({others})" if others else "")
