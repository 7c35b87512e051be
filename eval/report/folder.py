"""The files of a run folder as the report needs them. Only ``config.yaml`` must be there; the rest may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.report import wording
from farm.experiments import run_tables
from farm.statistics.uncertainty import Estimate, mean
from farm.tables import formats

BASELINE = "sft"
"""the method that an experiment compares the others with"""


@dataclass(frozen=True)
class RunFolder:
    """What was read. A table whose file is missing is empty."""

    config_text: str
    config: dict[str, Any]
    date: str
    environment: dict[str, Any]
    metrics: pd.DataFrame
    """one row a training step: ``method``, ``step`` and what the method logged"""
    leaderboard: pd.DataFrame
    """one row a method, best first"""
    agreement: pd.DataFrame
    pairwise: pd.DataFrame
    head_to_head: pd.DataFrame
    exploitability: pd.DataFrame
    success: pd.DataFrame
    """one row a method and number of turns, where there were dialogues"""
    headlines: pd.DataFrame
    """sentences (``headline``) that an evaluator puts first"""
    outputs: pd.DataFrame
    preferences: pd.DataFrame
    judged: dict[str, pd.DataFrame]
    """role -> verdicts, the judge first"""
    costs: dict[str, Any]
    failures: pd.DataFrame
    """methods that failed, with stage and reason"""

    @classmethod
    def read(cls, run: Path) -> RunFolder:
        """Raises UserError for a folder without ``config.yaml``, and for a file that cannot be read."""
        text, config = run_tables.settings(run)
        environment = run_tables.mapping(run / "environment.json")
        written = datetime.fromtimestamp((run / "config.yaml").stat().st_mtime, UTC).isoformat(timespec="seconds")
        board = _table(run / "leaderboard.json", run / "leaderboard.csv")
        return cls(
            config_text=text,
            config=config,
            date=str(environment.get("date") or written),
            environment=environment,
            metrics=_metrics(run / "metrics.jsonl"),
            leaderboard=board,
            agreement=_table(run / "agreement.json", run / "agreement.csv"),
            pairwise=_table(run / "pairwise.json", run / "pairwise.csv"),
            head_to_head=_table(run / "head_to_head.json", run / "head_to_head.csv"),
            exploitability=_table(run / "exploitability.json", run / "exploitability.csv"),
            success=_table(run / "success.json", run / "success.csv"),
            headlines=_table(run / "headlines.json", run / "headlines.csv"),
            outputs=_table(run / "tables" / "outputs.parquet"),
            preferences=_table(run / "tables" / "preferences.parquet"),
            judged=_judged(run / "tables"),
            costs=run_tables.costs(run / "costs.json"),
            failures=_table(run / "failures.json", run / "failures.csv"),
        )

    @property
    def name(self) -> str:
        return str(self.config.get("name") or "run")

    @property
    def seed(self) -> int:
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else 0

    @property
    def confidence(self) -> float:
        """Of the intervals in the evaluator's tables."""
        evaluator = self.config.get("evaluator")
        value = evaluator.get("confidence") if isinstance(evaluator, dict) else None
        return float(value) if isinstance(value, float) and 0 < value < 1 else 0.95

    @cached_property
    def methods(self) -> list[str]:
        """Best first by the judge; those without a place at the end."""
        ranked = self.leaderboard["method"].tolist() if len(self.leaderboard) else []
        others = self.outputs["method"].astype(str).unique().tolist() if "method" in self.outputs else []
        return list(dict.fromkeys([*ranked, *others]))

    @cached_property
    def board(self) -> dict[str, dict[str, Any]]:
        """The leaderboard's rows by method."""
        return {str(row["method"]): row for row in self.leaderboard.to_dict(orient="records")}

    def measured(self, column: str) -> dict[str, Estimate]:
        """Method -> mean of a column of the outputs, with an interval clustered by instruction."""
        if column not in self.outputs or not {"method", "instruction"} <= set(self.outputs.columns):
            return {}
        rows = self.outputs[np.isfinite(pd.to_numeric(self.outputs[column], errors="coerce"))]
        return {
            str(name): mean(part[column], part["instruction"], confidence=self.confidence)
            for name, part in rows.groupby("method", sort=False)
        }

    def correlation(self, first: str, second: str) -> dict[str, Any] | None:
        """The row of the agreement table for two measures, in whichever order it has them."""
        if not {"first", "second", "spearman", "n_methods"} <= set(self.agreement.columns):
            return None
        for row in self.agreement.to_dict(orient="records"):
            known = all(wording.known(row[name]) for name in ("spearman", "n_methods"))
            if known and {row["first"], row["second"]} == {first, second}:
                return {str(k): v for k, v in row.items()}
        return None


def _table(*places: Path) -> pd.DataFrame:
    """The first of the files that is there, or an empty table."""
    for path in places:
        if path.is_file():
            return run_tables.read(path)
    return pd.DataFrame()


def _metrics(path: Path) -> pd.DataFrame:
    table = formats.read_table(path) if path.is_file() else pd.DataFrame()
    if not {"method", "step"} <= set(table.columns):
        return pd.DataFrame(columns=["method", "step"])
    numbers = {c: [float(v) if wording.known(v) else np.nan for v in table[c]] for c in table.columns if c != "method"}
    return pd.DataFrame({"method": table["method"].astype(str), **numbers}).dropna(subset="step")


def _judged(tables: Path) -> dict[str, pd.DataFrame]:
    files = sorted(tables.glob("judge_*.parquet"), key=lambda p: (p.stem != "judge_judge", p.stem))
    found = {file.stem.removeprefix("judge_"): run_tables.read(file) for file in files}
    return {role: t for role, t in found.items() if {"instruction", "preference"} <= set(t.columns) and len(t)}
