"""The page of a paper: what it claims, the picture of every claim and control, and the verdict.

Each row has a scale of its own, for claims are in units of their own; all begin where there is no effect. Below, the
methods of each run: true utility against distance from the SFT policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eval.report import charts, wording
from eval.report.charts import Axis, Interval, Point
from eval.report.folder import BASELINE
from eval.report.study import MARK, StudyFolder
from eval.report.tables import Cell, Column, Palette, Table, sortable
from farm.experiments import run_tables
from farm.experiments.claims.recorded import FILE, Result, Seen
from farm.roles import config

__all__ = ["FILE", "sections"]

_COLOURS = {"shown": "m0", "held": "m0", "contradicted": "m1", "failed": "m1"}
"""verdict -> the hue of its interval; others are grey"""


def sections(folder: Path) -> dict[str, Any]:
    """Everything that the page shows, by name.

    Raises:
        UserError: for a folder whose files are not what they should be.
    """
    place = folder / FILE
    result = config.validate(Result, run_tables.mapping(place), str(place))
    text, said = run_tables.settings(folder)
    seeds = ", ".join(map(str, result.seeds))
    return {
        "name": result.title,
        "arxiv": result.arxiv,
        "about": str(said.get("claim") or ""),
        "lead": f"Seeds {seeds}; {wording.number(result.minutes, 1)} minutes of stages; intervals at 95 % over seeds "
        "and instructions.",
        "claims": _rows("Claims", result.claims),
        "controls": _rows("Controls: one that fails voids the claims", result.controls) if result.controls else None,
        "pictures": [
            picture for run in sorted((folder / "runs").glob("*")) if (picture := _against_kl(run)) is not None
        ],
        "notes": str(said.get("notes") or ""),
        "config_text": text,
    }


def _rows(caption: str, seen: Sequence[Seen]) -> Table:
    columns = [Column("What is compared", numeric=False), Column("Effect, against 0", numeric=False)]
    columns += [Column("Effect"), Column("Verdict", numeric=False)]
    return Table(caption, columns, [_row(one) for one in seen], sortable=False)


def _row(seen: Seen) -> list[Cell]:
    number = wording.number(seen.effect, 3, signed=True)
    bounds = wording.interval(seen.low, seen.high, 3, signed=True)
    made_of = f"n {wording.count(seen.n)}, {wording.plural(seen.seeds, 'seed')}"
    small = (bounds or wording.TOO_FEW, made_of) if seen.effect is not None else ()
    drawing = None
    if seen.effect is not None:
        ends = [v for v in (seen.effect, seen.low, seen.high) if v is not None]
        low, high = (seen.effect if v is None else v for v in (seen.low, seen.high))
        one = Interval(seen.effect, low, high, f"{seen.text}: {number} {bounds}")
        colour = _COLOURS.get(seen.verdict, "base")
        drawing = charts.interval_row([one], charts.row_scale(ends, [0]), colour, 0, seen.text)
    value = Cell(number if small else wording.DASH, small, sortable(seen.effect))
    return [Cell(seen.text), Cell(drawing=drawing), value, Cell(seen.verdict)]


def _against_kl(run: Path) -> dict[str, Any] | None:
    """The methods of a run by their KL and gold utility, means over its seeds; None where a run has no such numbers."""
    if not (run / MARK).is_file():
        return None
    study = StudyFolder.read(run)
    board = study.table("leaderboard")
    if not {"method", "kl", "gold"} <= set(board.columns):
        return None
    means = board.groupby(board["method"].astype(str))[["kl", "gold"]].mean().dropna()
    if len(means) < 2:
        return None
    palette = Palette(study.methods, BASELINE)
    points = [_point(str(name), row, palette) for name, row in means.iterrows()]
    x, y = Axis("KL to the SFT policy, nats"), Axis("gold utility")
    drawn = charts.plot(f"Gold against KL in {run.name}", "One point a method.", x, y, points=points)
    return {"title": f"The methods of {run.name}", "drawing": drawn, "said": "means over seeds"}


def _point(name: str, row: pd.Series, palette: Palette) -> Point:
    note = f"{name}: gold {wording.number(row['gold'])} at KL {wording.number(row['kl'])}"
    colour = palette.colour(name)
    return Point(float(row["kl"]), float(row["gold"]), colour, note, name, shape=palette.shape(name))
