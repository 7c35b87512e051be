"""Published boards made again from their published annotations: our number, how far it is off, and why.

A row is a model of a board and one of its two headline columns. Why a number is off is found out, not looked up:

* the file of the model holds another judge's verdicts, or a different number of rows than were published;
* a row is missing, and the published fit pairs difficulties by position, which shifts all later ones;
* the published fit is an L1 path with cross-validation (ours with that recipe is equal), or its strength was chosen on
  rows that are not public (ours with that recipe is not equal either).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.published import arena_hard, fetch, sources
from eval.published.board import board
from eval.published.comparison import COMPARED, LENGTH_CONTROLLED, read_published
from eval.published.rows import from_table
from eval.rates.difficulty import Difficulty
from eval.rates.length_column import LengthControl
from eval.rates.length_control import Regulariser
from farm.statistics import terminal
from farm.statistics.result import Result
from farm.tables.formats import read_annotations, read_table

COLUMNS = ("win_rate", LENGTH_CONTROLLED)
TOLERANCES = {**{column: COMPARED[column] for column in COLUMNS}, arena_hard.SCORE: arena_hard.TOLERANCE}
ABSENT = "it has no published annotations"


@dataclass(frozen=True)
class Boards(Result):
    """Published boards beside ours."""

    rows: pd.DataFrame
    """board, method, column, published, ours, low, high, deviation, reason ("" where it is within the tolerance)"""

    def table(self) -> pd.DataFrame:
        """A row a board and column: how many rows are equal, and the largest deviation."""
        found: list[dict[str, Any]] = []
        for (name, column), part in self.rows.groupby(["board", "column"], sort=False):
            made = part[part["ours"].notna()]
            worst = made.loc[made["deviation"].abs().idxmax()] if len(made) else None
            found.append(
                {
                    "board": name,
                    "column": column,
                    "published": len(part),
                    "made_again": len(made),
                    "equal": int((made["reason"] == "").sum()),
                    "largest_deviation": np.nan if worst is None else abs(worst["deviation"]),
                    "at": "" if worst is None else worst["method"],
                }
            )
        return pd.DataFrame(found)

    def settings(self) -> dict[str, Any]:
        limits = ", ".join(f"{column} {limit:g}" for column, limit in TOLERANCES.items())
        return {"equal": f"within a tolerance, in percent points ({limits})"}

    def __str__(self) -> str:
        off = self.rows[(self.rows["reason"] != "") & self.rows["ours"].notna()]
        parts = [super().__str__()]
        if len(off):
            shown = off[["board", "method", "column", "published", "ours", "deviation", "reason"]]
            parts.append("not equal:\n" + terminal.shown(shown.reset_index(drop=True)))
        return "\n\n".join(parts)


def known() -> tuple[str, ...]:
    """The names of all boards."""
    return (*fetch.PUBLISHED, *arena_hard.BOARDS)


def boards(names: Sequence[str], offline: bool = False) -> Boards:
    """The named boards, fetched where they are not in the cache. Raises UserError as :func:`fetch.fetch`."""
    found = []
    for name in names:
        if name in arena_hard.BOARDS:
            found.append(arena_hard.compared(name, offline))
            continue
        at = fetch.fetch(fetch.PUBLISHED[name], offline=offline)
        found.append(compared(name, at.directory, at.annotator, at.leaderboard, at.difficulty, at.regulariser))
    return Boards(pd.concat(found, ignore_index=True))


def compared(
    name: str,
    directory: Path,
    annotator: str,
    leaderboard: Path,
    difficulty: Path | None = None,
    regulariser: Path | None = None,
) -> pd.DataFrame:
    """One board, from files: annotations in AlpacaEval's layout, the published table, and what length control takes."""
    rows = sources.read([directory], annotator=annotator)
    table = read_table(leaderboard)
    published = read_published(table.rename(columns={table.columns[0]: "method"}), str(leaderboard))
    ours = _made(rows, difficulty, regulariser, as_published=False)
    again = _made(rows, difficulty, regulariser, as_published=True) if difficulty is not None else ours
    out = []
    for column, bounds in ((COLUMNS[0], ("win_rate_low", "win_rate_high")), (COLUMNS[1], ("lc_low", "lc_high"))):
        if column not in published or (column not in ours and column == LENGTH_CONTROLLED):
            continue
        for method, said in pd.to_numeric(published[column], errors="coerce").dropna().items():
            row: dict[str, Any] = {"board": name, "method": str(method), "column": column, "published": float(said)}
            if method not in ours.index or np.isnan(ours.loc[method, column]):
                out.append({**row, "reason": ABSENT})
                continue
            value = float(ours.loc[method, column])
            row |= {"ours": value, "low": ours.loc[method, bounds[0]], "high": ours.loc[method, bounds[1]]}
            row["deviation"] = value - float(said)
            equal = abs(row["deviation"]) <= COMPARED[column]
            if equal:
                row["reason"] = ""
            elif column == LENGTH_CONTROLLED:
                row["reason"] = _of_length_control(ours.loc[method], abs(again.loc[method, column] - float(said)), rows)
            else:
                path = directory / str(method) / annotator / "annotations.json"
                row["reason"] = _of_win_rate(path, annotator, ours.loc[method], published.loc[method])
            out.append(row)
    return pd.DataFrame(out, columns=list(arena_hard.ROW))


def _made(rows: sources.Rows, difficulty: Path | None, regulariser: Path | None, as_published: bool) -> pd.DataFrame:
    if difficulty is None:
        return board(rows, rounds=2).rows.set_index("method")
    control = LengthControl(
        Difficulty.from_frame(read_table(difficulty), str(difficulty)),
        Regulariser.from_frame(read_table(regulariser), str(regulariser)) if regulariser else None,
        recipe="published" if as_published else "newton",
        alignment="position" if as_published else "instruction",
    )
    made = board(rows, metrics=["win_rate", "length_controlled"], length_control=control, rounds=2)
    return made.rows.set_index("method")


def _of_win_rate(path: Path, annotator: str, ours: pd.Series, published: pd.Series) -> str:
    """Why a win rate is not the published one."""
    if path.is_file():
        judges = sorted({name for name in from_table(read_annotations(path), path)["annotator"].names if name})
        if judges and judges != [annotator]:
            return f"its file holds the verdicts of {', '.join(judges)}"
    n = pd.to_numeric(published.get("n_total"), errors="coerce")
    if not pd.isna(n) and int(n) != int(ours["n_total"]):
        return f"published of {int(n)} verdicts, and the file holds {int(ours['n_total'])}"
    return "not explained: the published annotations have another mean"


def _of_length_control(ours: pd.Series, off_by_their_recipe: float, rows: sources.Rows) -> str:
    """Why a length-controlled win rate is not the published one."""
    instructions = rows.table["key"].nunique()
    equal = off_by_their_recipe <= COMPARED[LENGTH_CONTROLLED]
    if int(ours["n_total"]) + int(ours["n_missing"]) < instructions:
        by = "equal by position" if equal else "not equal by position either"
        return f"rows are missing, and the published fit pairs difficulties by position ({by})"
    if equal:
        return "the published fit is an L1 path with cross-validation; by that recipe it is equal"
    return f"its L1 strength was chosen on rows that are not public ({off_by_their_recipe:.3f} off by that recipe)"
