"""The leaderboard with its intervals drawn in the rows, and the differences between each two methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from eval.report import charts, svg, wording
from eval.report.folder import BASELINE, RunFolder
from eval.report.tables import Cell, Column, Palette, Table, constant, counted, estimated, sortable, valued

MARKS = {"judge": (0, False), "gold": (2, True), "humans": (1, True)}
"""role -> shape and whether hollow, in every chart that shows roles"""


def roles(run: RunFolder) -> list[str]:
    """The roles with win rates in the leaderboard, the judge first."""
    others = [c.removeprefix("win_rate_") for c in run.leaderboard.columns if c.startswith("win_rate_")]
    named = [r for r in others if f"win_rate_{r}_low" in run.leaderboard.columns]
    return ["judge", *named] if "win_rate" in run.leaderboard else named


def column_of(role: str) -> str:
    return "win_rate" if role == "judge" else f"win_rate_{role}"


def note(row: dict[str, Any], role: str) -> str:
    """One line on one win rate: who judged, the number, its interval, n."""
    name = column_of(role)
    said = wording.estimate(row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high"), 1, "%")
    n = f", n = {wording.count(row.get('n_total'))}" if role == "judge" else ""
    return f"{row['method']}, {wording.role(role)}: {said}{n}"


def section(run: RunFolder, palette: Palette) -> dict[str, Any]:
    """The table; with which symbols stand for which role, and what else a reader must know."""
    asked = roles(run)
    if not asked:
        return {"missing": "There is no leaderboard in this run folder (leaderboard.json)."}
    rows = list(run.board.values())
    bounds = [row.get(column_of(r) + end) for row in rows for r in asked for end in ("", "_low", "_high")]
    scale = charts.row_scale([float(b) for b in bounds if b is not None and wording.known(b)], include=[50])
    fields = _fields(run, palette, asked, scale)
    cells = [[cell(row) for _, cell in fields] for row in rows]
    table = Table("Methods, best first by the simulated judge", [column for column, _ in fields], cells)
    counted_verdicts = "n_total" in run.leaderboard
    return {
        "table": table,
        "axis": charts.interval_axis(scale),
        "axis_column": 2,
        "legend": [(charts.key(*MARKS.get(r, (3, True))), wording.role(r)) for r in asked],
        "some_missing": _any(rows, "missing"),
        "nothing_missing": counted_verdicts and not _any(rows, "missing"),
        "no_ties": counted_verdicts and not _any(rows, "n_draws"),
        "constant_kl": sorted(m for m, e in run.measured("kl").items() if constant(e) and e.value > 0),
        "baseline": BASELINE if BASELINE in run.board else None,
        "resampled": _resampled(run),
    }


Field = tuple[Column, Callable[[dict[str, Any]], Cell]]


def _fields(run: RunFolder, palette: Palette, asked: list[str], scale: svg.Scale) -> list[Field]:
    """The columns that this run has numbers for, each with how a row fills it."""
    rows = list(run.board.values())

    def name(row: dict[str, Any]) -> Cell:
        method = str(row["method"])
        return Cell(method, ("baseline",) if method == BASELINE else (), method, colour=palette.colour(method))

    def picture(row: dict[str, Any]) -> Cell:
        method = str(row["method"])
        shown = asked if method != BASELINE or _resampled(run) else asked[:1]
        drawn = [charts.Interval(*numbers(row, column_of(r)), note(row, r), *MARKS.get(r, (3, True))) for r in shown]
        title = f"Win rates of {method} against the baseline"
        chart = charts.interval_row(drawn, scale, palette.colour(method), 50, title)
        return Cell(drawing=chart, sort=sortable(row.get(column_of(asked[0]))))

    def win_rate(role: str) -> Callable[[dict[str, Any]], Cell]:
        return lambda row: valued(*numbers(row, column_of(role)), 1)

    fields: list[Field] = [
        (
            Column("Rank", "place by the simulated judge, with the interval of the place"),
            lambda row: Cell(wording.count(row.get("rank")), _places(row), sortable(row.get("rank"))),
        ),
        (Column("Method", numeric=False), name),
        (Column("Win rate against the baseline, %", numeric=False), picture),
    ]
    fields += [(Column(_short(r), f"win rate by the {wording.role(r)}, in percent"), win_rate(r)) for r in asked]
    if _any(rows, "gold"):
        fields.append((Column("Gold utility", "mean of the answers"), lambda row: valued(*numbers(row, "gold"))))
    if _any(rows, "proxy"):
        hint = "mean score of the reward model"
        fields.append((Column("Proxy reward", hint), lambda row: valued(*numbers(row, "proxy"))))
    if kl := run.measured("kl"):
        fields.append((Column("KL", "to the SFT policy, nats an answer"), lambda row: estimated(kl.get(row["method"]))))
    if length := lengths(run):
        digits = 0 if max(e.value for e in length.values()) >= 100 else 1
        fields.append((Column("Length", "characters"), lambda row: estimated(length.get(row["method"]), digits)))
    if "n_total" in run.leaderboard:
        fields.append((Column("n", "verdicts of the simulated judge"), lambda row: counted(row.get("n_total"))))
    if _any(rows, "n_draws"):
        hint = "verdicts of the simulated judge without a winner"
        fields.append((Column("Ties", hint), lambda row: counted(row.get("n_draws"))))
    if _any(rows, "missing"):
        fields.append((Column("Missing", "requests without a verdict"), lambda row: counted(row.get("missing"))))
    return fields


def _resampled(run: RunFolder) -> bool:
    """Whether the baseline's win rate was measured, with a second sample of its answers, and is not set to one half."""
    return wording.known(run.board.get(BASELINE, {}).get("win_rate_low"))


def _any(rows: list[dict[str, Any]], column: str) -> bool:
    """Whether some row has a number other than 0 in the column."""
    return any(wording.known(row.get(column)) and row[column] for row in rows)


def _short(role: str) -> str:
    return {"judge": "Judge, %", "humans": "Humans, %", "gold": "Gold, %"}.get(role, f"{role}, %")


def lengths(run: RunFolder) -> dict[str, Any]:
    """Method -> mean characters of an answer."""
    if not {"output", "method", "instruction"} <= set(run.outputs.columns):
        return {}
    measured = replace(run, outputs=run.outputs.assign(characters=run.outputs["output"].str.len()))
    return measured.measured("characters")


def numbers(row: dict[str, Any], name: str) -> tuple[float, float, float]:
    """A value of a row and its bounds; NaN where it has none."""
    value, low, high = (row.get(name + end) for end in ("", "_low", "_high"))
    return tuple(float(v) if v is not None and wording.known(v) else float("nan") for v in (value, low, high))  # type: ignore[return-value]


def _places(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row.get("rank_low"), row.get("rank_high")
    if not (wording.known(low) and wording.known(high)):
        return ()
    return (f"{wording.count(low)}–{wording.count(high)}",)


# --- differences between each two methods -----------------------------------------------------------------------------

SHOWN_INTERVALS = 9
"""up to this many methods the matrix has room for the intervals"""


def differences(run: RunFolder) -> dict[str, Any]:
    """The matrix of win rate differences: row minus column, in percent points, by the simulated judge."""
    needed = {"first", "second", "difference", "low", "high"}
    if not needed <= set(run.pairwise.columns) or not len(run.pairwise):
        return {"missing": "There are no pairwise differences in this run folder (pairwise.json)."}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in run.pairwise.to_dict(orient="records"):
        one, other = str(row["first"]), str(row["second"])
        found[one, other] = {**row, "sign": 1}
        found[other, one] = {**row, "difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
    names = [m for m in run.methods if any(m in pair for pair in found)]
    largest = max((abs(d["difference"]) for d in found.values() if wording.known(d["difference"])), default=1) or 1
    rows = []
    for one in names:
        cells = []
        for other in names:
            pair = found.get((one, other))
            cells.append(_difference(one, other, pair, largest, len(names)) if pair else None)
        rows.append((one, cells))
    sample = run.pairwise.get("n_instructions")
    return {"names": names, "rows": rows, "n": int(sample.max()) if sample is not None else None}


def _difference(one: str, other: str, pair: dict[str, Any], largest: float, methods: int) -> dict[str, Any]:
    value, low, high = pair["difference"], pair["low"], pair["high"]
    p = pair.get("p_max_t")
    sure = bool(p < 0.05) if wording.known(p) and p is not None else low * high > 0
    said = f"{one} minus {other}: {wording.estimate(value, low, high, 1, 'points', signed=True)}"
    if wording.known(p):
        said += f", p = {wording.number(p, 3)} (all differences at once)"
    if wording.known(pair.get("n_instructions")):
        said += f", {wording.count(pair['n_instructions'])} instructions"
    return {
        "text": wording.number(value, 1, signed=True),
        "small": wording.interval(low, high, 1, signed=True) if methods <= SHOWN_INTERVALS else "",
        "hint": said,
        "side": "better" if value > 0 else "worse",
        "strength": round(0.08 + 0.5 * min(abs(value) / largest, 1.0), 3) if sure else 0.0,
        "sure": sure,
    }


def head_to_head(run: RunFolder) -> dict[str, Any] | None:
    """The win-rate matrix where every method met every other: how often the row beats the column, in percent."""
    table = run.head_to_head
    if not {"first", "second", "win_rate"} <= set(table.columns) or not len(table):
        return None
    found = {(str(r["first"]), str(r["second"])): r for r in table.to_dict(orient="records")}
    names = [m for m in run.methods if any(m in pair for pair in found)]
    rows = [(one, [_met(one, other, found.get((one, other)), len(names)) for other in names]) for one in names]
    return {"names": names, "rows": rows, "gaps": _gaps(run.exploitability)}


def _gaps(found: pd.DataFrame) -> Table | None:
    """Who beats each method most, and its gap to the best answer; the smallest gap first."""
    if not len(found) or not {"method", "strongest", "win_rate", "gap"} <= set(found.columns):
        return None
    columns = [
        Column("Method", numeric=False),
        Column("Beaten most by", numeric=False),
        Column("in %", "how often the other method is preferred, on instructions that did not choose it"),
        Column("Gap", "2 (share of duels that the best answer at hand wins - 1/2)"),
    ]
    table = Table("How far each method is from an equilibrium", columns)
    for row in found.sort_values("gap", kind="stable").to_dict(orient="records"):
        method, strongest = str(row["method"]), str(row["strongest"])
        beaten = valued(row["win_rate"], row.get("low"), row.get("high"), 1)
        gap = valued(row["gap"], row.get("gap_low"), row.get("gap_high"), 2)
        table.rows.append([Cell(method, sort=method), Cell(strongest, sort=strongest), beaten, gap])
    return table


def _met(one: str, other: str, pair: dict[str, Any] | None, methods: int) -> dict[str, Any] | None:
    if pair is None or not wording.known(pair["win_rate"]):
        return None
    value, low, high = pair["win_rate"], pair.get("low"), pair.get("high")
    sure = wording.known(low) and wording.known(high) and not low <= 50 <= high  # type: ignore[operator]
    said = f"{one} beats {other} in {wording.estimate(value, low, high, 1, '%')}"
    if wording.known(pair.get("n_total")):
        said += f" of {wording.count(pair['n_total'])} comparisons"
    return {
        "text": wording.number(value, 1),
        "small": wording.interval(low, high, 1) if methods <= SHOWN_INTERVALS else "",
        "hint": said,
        "side": "better" if value > 50 else "worse",
        "strength": round(0.08 + 0.5 * min(abs(value - 50) / 50, 1.0), 3) if sure else 0.0,
        "sure": bool(sure),
    }
