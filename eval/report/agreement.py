"""Does the simulated judge rank as the truth does? The scatter, its correlations, and length against win rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.report import charts, leaderboard, wording
from eval.report.charts import Axis, Point
from eval.report.folder import RunFolder
from eval.report.tables import Cell, Column, Palette, Table, counted, valued

NAN = float("nan")


def section(run: RunFolder, palette: Palette) -> dict[str, Any]:
    """A scatter of win rates for each other role, or of mean gold utility where no other role judged."""
    if "win_rate" not in run.leaderboard:
        return {"missing": "There is no leaderboard to compare with."}
    others = [r for r in leaderboard.roles(run) if r != "judge"]
    pictures = [_by_role(run, palette, role) for role in others]
    if "gold" not in others and "gold" in run.leaderboard and run.leaderboard["gold"].notna().any():
        pictures.append(_by_utility(run, palette))
    if not pictures:
        return {
            "missing": "Only the simulated judge has judged in this run, and no gold utility is known: "
            "there is nothing to compare it with."
        }
    return {"charts": pictures, "tables": _correlations(run), "diagonal": bool(others)}


def _by_role(run: RunFolder, palette: Palette, role: str) -> dict[str, Any]:
    label = wording.role(role)
    points = _points(run, palette, "win_rate", leaderboard.column_of(role), "judge", label, " %")
    title = f"Win rates by the simulated judge and by the {label}"
    said = _correlation_words(run, "judge", role, points)
    x, y = Axis("win rate by the simulated judge, %", (50,)), Axis(f"win rate by the {label}, %", (50,))
    drawn = charts.plot(title, f"One point a method. {said}", x, y, points=points, diagonal=True, height=400)
    return {"title": f"Against the {label}", "drawing": drawn, "said": said}


def _by_utility(run: RunFolder, palette: Palette) -> dict[str, Any]:
    points = _points(run, palette, "win_rate", "gold", "judge", "gold utility", "")
    said = _correlation_words(run, "judge", "gold_utility", points)
    x, y = Axis("win rate by the simulated judge, %", (50,)), Axis("mean gold utility")
    title = "Win rate by the simulated judge and mean gold utility"
    drawn = charts.plot(title, f"One point a method. {said}", x, y, points=points, height=400)
    return {"title": "Against mean gold utility", "drawing": drawn, "said": said}


def _points(run: RunFolder, palette: Palette, x: str, y: str, x_name: str, y_name: str, y_unit: str) -> list[Point]:
    found = []
    for method, row in run.board.items():
        (a, a_low, a_high), (b, b_low, b_high) = (leaderboard.numbers(row, name) for name in (x, y))
        digits = 1 if y_unit else 2
        note = (
            f"{method}: {x_name} {wording.estimate(a, a_low, a_high, 1)} %, "
            f"{y_name} {wording.estimate(b, b_low, b_high, digits)}{y_unit}"
        )
        marked = palette.colour(method), note, method
        found.append(Point(a, b, *marked, a_low, a_high, b_low, b_high, shape=palette.shape(method)))
    return found


def _correlation_words(run: RunFolder, first: str, second: str, points: Sequence[Point] = ()) -> str:
    row = run.correlation(first, second)
    if row is None:
        return ""
    value = wording.estimate(row["spearman"], row.get("spearman_low"), row.get("spearman_high"), 2)
    explained = _explained(points)
    squared = f", R² {wording.number(explained, 2)}" if wording.known(explained) else ""
    return f"Spearman {value}{squared}, {wording.plural(int(row['n_methods']), 'method')}"


def _explained(points: Sequence[Point]) -> float:
    """R²: the share of the variance of one measure that a straight line in the other explains."""
    xy = np.array([(p.x, p.y) for p in points if wording.known(p.x) and wording.known(p.y)])
    if len(xy) < 3 or (xy.std(axis=0) == 0).any():
        return NAN
    return float(np.corrcoef(xy.T)[0, 1] ** 2)


def _correlations(run: RunFolder) -> list[Table]:
    """The judge against every other measure, and then the other measures among themselves."""
    if not {"first", "second", "spearman"} <= set(run.agreement.columns):
        return []
    tables = []
    rows = run.agreement.to_dict(orient="records")
    for caption, wanted in (
        ("Rank correlations of the simulated judge", True),
        ("Rank correlations of the other measures", False),
    ):
        table = Table(
            caption,
            [
                Column("With" if wanted else "Between", numeric=False),
                Column("Spearman", "rank correlation; the interval is over other instructions, the methods fixed"),
                Column("over methods", "interval if other methods had been drawn"),
                Column("Kendall", "tau-b; the interval is over other instructions, the methods fixed"),
                Column("Methods"),
                Column("Instructions"),
            ],
        )
        for row in rows:
            names = [str(row["first"]), str(row["second"])]
            if ("judge" in names) != wanted:
                continue
            between = " and ".join(wording.role(n) for n in names if not (wanted and n == "judge"))
            cells = [Cell(between, sort=between), _value(row, "spearman"), _bounds(row, "spearman_methods")]
            cells += [_value(row, "kendall"), counted(row.get("n_methods")), counted(row.get("n_instructions"))]
            table.rows.append(cells)
        if table.rows:
            tables.append(table)
    return tables


def _value(row: dict[Any, Any], name: str) -> Cell:
    return valued(*leaderboard.numbers(row, name))


def _bounds(row: dict[Any, Any], name: str) -> Cell:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    shown = wording.interval(low, high)
    return Cell(shown or wording.DASH, sort=low if shown and low is not None else "")


def lengths(run: RunFolder, palette: Palette) -> dict[str, Any]:
    """Length of the answers against win rate, by the judge and by the best other authority there is."""
    measured = leaderboard.lengths(run)
    if not measured or "win_rate" not in run.leaderboard:
        return {
            "missing": "The run folder lacks the answers or their win rates, so length cannot be set against winning."
        }
    others = [r for r in ("gold", "humans") if r in leaderboard.roles(run)][:1]
    pictures = []
    for role in ["judge", *others]:
        points = []
        for method, row in run.board.items():
            if (length := measured.get(method)) is None:
                continue
            y, y_low, y_high = leaderboard.numbers(row, leaderboard.column_of(role))
            note = (
                f"{method}: {wording.estimate(length.value, length.low, length.high, 0)} characters "
                f"(n = {wording.count(length.n)}), {wording.role(role)} {wording.estimate(y, y_low, y_high, 1)} %"
            )
            bars = length.low, length.high, y_low, y_high
            marked = palette.colour(method), note, method
            points.append(Point(length.value, y, *marked, *bars, shape=palette.shape(method)))
        label = wording.role(role)
        x, y_axis = Axis("mean characters of an answer"), Axis(f"win rate by the {label}, %", (50,))
        drawn = charts.plot(f"Length and win rate by the {label}", "One point a method.", x, y_axis, points=points)
        pictures.append({"title": f"By the {label}", "drawing": drawn, "said": ""})
    return {"charts": pictures}
