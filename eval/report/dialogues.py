"""Success by turn: how often held-out dialogues were rewarded within 1, 2, ... turns."""

from __future__ import annotations

from typing import Any

from eval.report.folder import RunFolder
from eval.report.tables import Cell, Column, Table, counted, valued


def section(run: RunFolder) -> dict[str, Any] | None:
    """A row for each method; nothing where the run had no dialogues."""
    found = run.success
    if not {"method", "turn", "success", "success_low", "success_high"} <= set(found.columns) or not len(found):
        return None
    turns = sorted({int(turn) for turn in found["turn"]})
    columns = [Column("Method", numeric=False), *(Column(f"Within {t}, %") for t in turns)]
    columns += [Column("Distinct, %", "different responses of all responses in an episode"), Column("Turns")]
    table = Table("Success by turn", [*columns, Column("Episodes")])
    for method, rows in found.groupby("method", sort=False):
        by_turn = {int(row["turn"]): row for row in rows.to_dict(orient="records")}
        last, cells = by_turn[max(by_turn)], [Cell(str(method), sort=str(method))]
        for turn in turns:
            row = by_turn.get(turn)
            share = [] if row is None else [100 * row[name] for name in ("success", "success_low", "success_high")]
            cells.append(valued(share[0], share[1], share[2], 1) if share else Cell())
        distinct, mean = last.get("distinct", float("nan")), last.get("turns", float("nan"))
        cells += [valued(100 * distinct, None, None, 1), valued(mean, None, None, 2), counted(last.get("n_episodes"))]
        table.rows.append(cells)
    return {"table": table, "turns": len(turns)}
