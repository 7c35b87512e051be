"""Win rates by category (the dataset or category of an instruction), shrunken so that small groups do not mislead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from eval.rates.categories import by_category
from eval.rates.winrate import scores
from eval.report.folder import BASELINE, RunFolder
from eval.report.tables import Cell, Column, Table, counted, valued

COLUMNS = ("category", "dataset")


def section(run: RunFolder) -> dict[str, Any] | None:
    """Rows are categories, columns methods; nothing where the run has no category, or only one."""
    rows = run.judged.get("judge")
    kinds = _kinds(run)
    if rows is None or kinds is None or not {"method", "instruction", "preference"} <= set(rows.columns):
        return None
    name, of_instruction = kinds
    category = rows["instruction"].map(of_instruction)
    score = scores(rows["preference"])
    kept = category.notna().to_numpy() & ~np.isnan(score)
    if category[kept].nunique() < 2:
        return None
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for method in run.methods:
        own = kept & (rows["method"].astype(str) == method).to_numpy()
        if not own.any() or (method == BASELINE and np.ptp(score[own]) == 0):
            continue
        table = by_category(
            score[own], category[own].astype(str), rows["instruction"].to_numpy()[own], confidence=run.confidence
        )
        found[method] = {str(r["category"]): r for r in table.to_dict(orient="records")}
    if not found:
        return None
    nodes = sorted({node for by_node in found.values() for node in by_node})
    asked = category[kept].astype(str)
    instructions = rows.loc[kept].assign(_category=asked).drop_duplicates("instruction")["_category"]
    table = Table(
        f"Win rates by {name}",
        [Column(name.capitalize(), numeric=False), Column("Instructions"), *(Column(f"{m}, %") for m in found)],
    )
    for node in nodes:
        inside = instructions.str.startswith(node + "/") | (instructions == node)
        table.rows.append(
            [
                Cell(node, sort=node),
                counted(int(inside.sum())),
                *(_cell(by_node.get(node)) for by_node in found.values()),
            ]
        )
    return {"table": table, "name": name}


def _cell(row: dict[str, Any] | None) -> Cell:
    if row is None:
        return Cell("–", sort="")
    cell = valued(row["shrunken"], row["shrunken_low"], row["shrunken_high"], 1)
    return Cell(cell.text, (*cell.small, f"raw {row['win_rate']:.1f}, n {int(row['n'])}"), cell.sort)


def _kinds(run: RunFolder) -> tuple[str, pd.Series] | None:
    """The column that sorts instructions, and its value by instruction."""
    for table in (run.judged.get("judge"), run.outputs):
        for name in COLUMNS:
            if table is not None and name in table and "instruction" in table and table[name].notna().any():
                known = table[table[name].notna()].drop_duplicates("instruction")
                return name, known.set_index("instruction")[name].astype(str)
    return None
