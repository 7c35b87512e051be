"""Win rates of annotation files: by method, and by a column such as ``dataset``.

Within a method the intervals are clustered by instruction. Rates of small groups are also shrunk towards the method's
overall rate (:mod:`eval.categories`), so that a list of weakest groups is not led by the smallest ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eval.result import Result
from eval.winrate import WinRate, win_rate
from farm.errors import UserError
from farm.formats import read_annotations


@dataclass(frozen=True)
class Evaluation(Result):
    """Win rates of one or several methods, overall and by group."""

    overall: tuple[WinRate, ...]
    groups: pd.DataFrame
    """method, group, win_rate, low, high, n, ...; empty without the column"""
    by: str
    confidence: float

    def table(self) -> pd.DataFrame:
        """One row a method and one a group, in percent, under AlpacaEval's names."""
        rows = [{"method": w.method, self.by: "all", **_columns(w)} for w in self.overall]
        overall = pd.DataFrame(rows)
        return pd.concat([overall, self.groups], ignore_index=True) if len(self.groups) else overall

    def settings(self) -> dict[str, object]:
        w = self.overall[0]
        return {
            "ties": w.tie_rule,
            "clusters": w.clustered_by,
            "confidence": self.confidence,
            "baseline": ", ".join(sorted({w.baseline for w in self.overall})),
        }


def _columns(w: WinRate) -> dict[str, object]:
    missing = ", ".join(f"{n} {why}" for why, n in w.missing.items())
    bounds = {"win_rate_low": 100 * w.low, "win_rate_high": 100 * w.high}
    return {**w.alpaca_eval(), **bounds, "missing": sum(w.missing.values()), "missing_why": missing}


def evaluate_files(files: Sequence[Path], *, by: str = "dataset", confidence: float = 0.95) -> Evaluation:
    """The win rates of annotation files. Raises UserError with the file for anything wrong in one."""
    tables = []
    for path in files:
        table = read_annotations(path)
        if not len(table):
            raise UserError(f"{path}: holds no annotation")
        tables.append(table if "generator_2" in table else table.assign(generator_2=Path(path).stem))
    return evaluate_table(pd.concat(tables, ignore_index=True), by=by, confidence=confidence)


def evaluate_table(annotations: pd.DataFrame, *, by: str = "dataset", confidence: float = 0.95) -> Evaluation:
    """The win rates of each method (``generator_2``) of an annotation table, all against one baseline."""
    cluster = "instruction" if "instruction" in annotations else "instruction_id"
    overall: list[WinRate] = []
    groups: list[dict[str, object]] = []
    for method, own in annotations.groupby("generator_2", sort=True, observed=True):
        overall.append(win_rate(own, clusters=(cluster,), confidence=confidence, method=str(method)))
        if by not in own:
            continue
        for group, part in own.groupby(by, sort=True, observed=True):
            w = win_rate(part, clusters=(cluster,), confidence=confidence, method=str(method))
            groups.append({"method": str(method), by: str(group), **_columns(w)})
    return Evaluation(tuple(overall), pd.DataFrame(groups), by, confidence)
