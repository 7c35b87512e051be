"""What ``farm validate`` does: one judge against humans, or a table of judge runs with labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eval.judge_runs import audit_runs
from eval.validate import validate
from farm.errors import UserError
from farm.statistics.result import Result
from farm.votes.table import read_votes


@dataclass(frozen=True)
class JudgeRuns(Result):
    """One row a judge run: accuracy, consistency over orders, kappa, position."""

    runs: pd.DataFrame
    by: tuple[str, ...]
    origin: str

    def table(self) -> pd.DataFrame:
        return self.runs

    def settings(self) -> dict[str, Any]:
        return {
            "runs": len(self.runs),
            "by": ", ".join(self.by),
            "intervals": "clustered by pair",
            "source": self.origin,
        }


def run(judge: Path, human: Path | None, by: str | None, rounds: int, seed: int, confidence: float) -> Result:
    """The validation, or the table of runs when the judge's file carries the labels itself."""
    votes = read_votes(judge)
    if human is None:
        if "human_label" not in votes:
            raise UserError(f"{judge}: no `human_label` beside the verdicts: give the human votes with --human")
        known = ("subset", "judge", "strategy", "annotator")
        columns = [c.strip() for c in by.split(",")] if by else [c for c in known if c in votes][:3]
        return JudgeRuns(audit_runs(votes, columns), tuple(columns), str(judge))
    if by is not None:
        raise UserError("--by is for judge runs that carry their labels; with --human one judge is validated")
    names = votes["annotator"].unique()
    humans = read_votes(human)
    if len(names) > 1:
        raise UserError(
            f"{judge}: {len(names)} annotators ({', '.join(map(str, names[:3]))} ...); validate one judge at a time"
        )
    return validate(votes, humans, rounds=rounds, seed=seed, confidence=confidence)
